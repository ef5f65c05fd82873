//! Debian's kernel and what its modules are built with, unpacked into a cache. Nothing is
//! installed, so it needs no rights.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Whatever the current cloud kernel is called.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Unpacked packages.
pub(crate) struct Packages {
    root: PathBuf,
    /// The version, as modules know it.
    pub(crate) release: String,
}

impl Packages {
    /// The bzImage.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// A module of the kernel, by its place among them.
    pub(crate) fn module(&self, path: &str) -> PathBuf {
        self.root.join(format!("lib/modules/{}/kernel/{path}", self.release))
    }

    /// The folder that modules are built in.
    pub(crate) fn headers(&self) -> PathBuf {
        self.root.join(format!("usr/src/linux-headers-{}", self.release))
    }

    /// The headers that all kernels of this version have, with their makefile.
    pub(crate) fn common_headers(&self) -> PathBuf {
        let version = self.release.trim_end_matches("-cloud-amd64");
        self.root.join(format!("usr/src/linux-headers-{version}-common"))
    }
}

/// What a command says, or why it fails.
fn said(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim()))
}

/// The packages that one depends on, with this beginning.
fn depends(package: &str, beginning: &str) -> Result<Vec<String>, String> {
    let list = said(Command::new("apt-cache").args(["depends", package]))?;
    let names = list.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let names: Vec<_> =
        names.filter(|name| name.starts_with(beginning)).map(str::to_owned).collect();
    if names.is_empty() {
        Err(format!("apt knows no {beginning}* of {package}"))
    } else {
        Ok(names)
    }
}

/// Where packages are kept between runs.
fn cache() -> Result<PathBuf, String> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    folder("PAGEVEIL_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("pageveil")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/pageveil")))
        .ok_or_else(|| "there is no place for a cache".into())
}

/// The packages of the current kernel, unpacked; fetched if the cache does not have them.
///
/// # Errors
/// Why they can't be had.
pub(crate) fn unpacked() -> Result<&'static Packages, String> {
    static PACKAGES: OnceLock<Result<Packages, String>> = OnceLock::new();
    PACKAGES.get_or_init(unpack).as_ref().map_err(Clone::clone)
}

/// With apt's lists as they are, or if they are none or old, with new ones.
fn unpack() -> Result<Packages, String> {
    unpack_current().or_else(|why| {
        let updated = said(Command::new("apt-get").args(["update", "-qq"]));
        updated.map_err(|no| format!("{why}; {no}"))?;
        unpack_current()
    })
}

fn unpack_current() -> Result<Packages, String> {
    let image = depends(KERNEL, "linux-image-")?.into_iter().next().unwrap_or_default();
    let release = image.trim_start_matches("linux-image-").to_owned();
    let headers = format!("linux-headers-{release}");
    let mut names = depends(&headers, "linux-headers-")?;
    names.extend(depends(&headers, "linux-kbuild-")?);
    names.extend([image, headers]);
    let root = cache()?.join(format!("linux-{release}-{}", content(&names)?));
    if !root.exists() {
        fetch(&names, &root)?;
    }
    Ok(Packages { root, release })
}

/// What stands for the content of packages: the sums that apt checks them by, begun.
fn content(names: &[String]) -> Result<String, String> {
    let list = said(Command::new("apt-get").args(["download", "--print-uris"]).args(names))?;
    let sums: Vec<_> = list.lines().filter_map(|line| line.rsplit(':').next()?.get(..8)).collect();
    if sums.len() == names.len() { Ok(sums.join("-")) } else { Err(format!("no sums: {list}")) }
}

/// Fetches packages and unpacks them to `root`, which is there only when all of it is.
fn fetch(names: &[String], root: &Path) -> Result<(), String> {
    let begun = root.with_extension(std::process::id().to_string());
    let failed = |why| format!("{}: {why}", begun.display());
    std::fs::create_dir_all(&begun).map_err(failed)?;
    said(Command::new("apt-get").args(["download", "-qq"]).args(names).current_dir(&begun))?;
    for entry in std::fs::read_dir(&begun).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            said(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&begun))?;
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    match std::fs::rename(&begun, root) {
        // Another run was faster, with the same content.
        Err(_) if root.exists() => std::fs::remove_dir_all(&begun).map_err(failed),
        done => done.map_err(failed),
    }
}
