//! What a manifest and the lock file say about dependencies: as much TOML as our own files need.

/// One dependency of a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The package that is meant, whatever it is called here.
    pub(crate) name: String,
    /// Only for tests, examples and benches.
    pub(crate) dev: bool,
    /// Only if a feature asks for it.
    pub(crate) optional: bool,
    /// Only where this holds, as the manifest has it.
    pub(crate) target: Option<String>,
}

/// Every dependency in a manifest.
pub(crate) fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = vec![];
    // The table that we are in: its kind, and the dependency if it has a table of its own.
    let mut table: Option<(bool, Option<String>)> = None;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = None;
            let Some((before, after)) = header.split_once("dependencies") else { continue };
            let target = before.strip_prefix("target.").map(|rest| {
                rest.trim_end_matches(['d', 'e', 'v', '-']).trim_end_matches('.').to_owned()
            });
            let dev = before.ends_with("dev-");
            if before.starts_with("workspace") {
                continue;
            }
            table = Some((dev, target.clone()));
            if let Some(name) = after.strip_prefix('.') {
                found.push(Dependency { name: unquoted(name), dev, optional: false, target });
                table = Some((dev, Some("\0own".into())));
            }
        } else if let (Some((dev, target)), Some((key, value))) = (&table, line.split_once('=')) {
            let (key, value) = (key.trim(), value.trim());
            if target.as_deref() == Some("\0own") {
                let last = found.last_mut().expect("its table began with it");
                last.optional |= key == "optional" && value.starts_with("true");
                if key == "package" {
                    last.name = unquoted(value);
                }
            } else if !key.starts_with('#') {
                let name = key.split('.').next().unwrap_or(key);
                let field = |name: &str| {
                    let (_, rest) = value.split_once(&format!("{name} = "))?;
                    rest.split([',', '}']).next().map(|value| value.trim().to_owned())
                };
                found.push(Dependency {
                    name: field("package").map_or_else(|| unquoted(name), |name| unquoted(&name)),
                    dev: *dev,
                    optional: field("optional").is_some_and(|value| value == "true"),
                    target: target.clone(),
                });
            }
        }
    }
    found
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

/// One package of the lock file.
#[derive(Debug, Default)]
pub(crate) struct Locked {
    pub(crate) name: String,
    /// None for a package of ours.
    pub(crate) source: Option<String>,
    pub(crate) checksum: bool,
    pub(crate) version: String,
    /// By name, and by version where the lock file has several.
    pub(crate) uses: Vec<String>,
}

impl Locked {
    /// Whether these words of a lock file mean it.
    pub(crate) fn is(&self, used: &str) -> bool {
        match used.split_once(' ') {
            None => self.name == used,
            Some((name, version)) => self.name == name && self.version == version,
        }
    }
}

/// Every package in a lock file.
pub(crate) fn packages(lock: &str) -> Vec<Locked> {
    let tables = lock.split("[[package]]").skip(1);
    tables
        .map(|table| {
            let mut package = Locked::default();
            for line in table.lines() {
                match line.split_once(" = ") {
                    Some(("name", value)) => package.name = unquoted(value),
                    Some(("version", value)) => package.version = unquoted(value),
                    Some(("source", value)) => package.source = Some(unquoted(value)),
                    Some(("checksum", _)) => package.checksum = true,
                    _ if line.starts_with(" \"") => {
                        let used = line.trim().trim_matches(['"', ',']);
                        package.uses.push(used.split(" (").next().unwrap_or(used).to_owned());
                    }
                    _ => {}
                }
            }
            package
        })
        .collect()
}

#[test]
fn a_manifest_is_read_in_every_way_that_it_can_be_written() {
    let manifest = "
        [package]
        name = \"x\"
        [dependencies]
        a.workspace = true
        # b = \"1\"
        c = { version = \"1\", optional = true }
        d = { package = \"real-d\", version = \"1\" }
        [dev-dependencies]
        e = \"1\"
        [target.'cfg(loom)'.dependencies]
        f = \"1\"
        [target.'cfg(unix)'.dev-dependencies]
        g = \"1\"
        [dependencies.h]
        version = \"1\"
        optional = true
        [features]
        default = [\"c\"]";
    let expected = [
        ("a", false, false, None),
        ("c", false, true, None),
        ("real-d", false, false, None),
        ("e", true, false, None),
        ("f", false, false, Some("'cfg(loom)'")),
        ("g", true, false, Some("'cfg(unix)'")),
        ("h", false, true, None),
    ]
    .map(|(name, dev, optional, target): (&str, _, _, Option<&str>)| Dependency {
        name: name.into(),
        dev,
        optional,
        target: target.map(str::to_owned),
    });
    assert_eq!(dependencies(manifest), expected);
}
