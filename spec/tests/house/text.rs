//! The house's files, and Rust source without its comments and strings.

use std::fs;
use std::path::Path;

/// A text file of the house, named from the root with `/`.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The file's own name.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Its lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Every text file under the root but what git and cargo keep there.
pub(crate) fn tree() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("spec is in the root");
    let mut files = vec![];
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("readable").path();
            let kept_by_tools = path.ends_with(".git") || path.join("CACHEDIR.TAG").exists();
            if path.is_dir() && !kept_by_tools {
                folders.push(path);
            } else if path.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root).expect("under the root");
                let path = path.to_str().expect("our names are ASCII").replace('\\', "/");
                files.push(File { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(files.len() > 20, "this is not the house");
    files
}

/// Source with every comment gone and every literal emptied; lines stay where they are.
pub(crate) fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(len) = raw_string(rest, &out) {
            len
        } else if first == '"' {
            string(rest)
        } else if let Some(len) = character(rest) {
            len
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (gone, left) = rest.split_at(len);
        // A separator, so that what stood on both sides does not become one word.
        out.push(' ');
        out.extend(gone.chars().filter(|c| *c == '\n'));
        rest = left;
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a raw string that starts here; `before` says whether its `r` ends a word.
fn raw_string(text: &str, before: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    if before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let hashes = text[prefix.len()..].find('"')?;
    let start = prefix.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()))
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of a character literal; a lifetime has no second quote in the right place.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        // The escaped character itself may be a quote.
        return escape.char_indices().skip(1).find(|(_, c)| *c == '\'').map(|(at, _)| at + 3);
    }
    let first = inner.chars().next()?;
    inner[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}

/// Whether a word stands in the text on its own.
pub(crate) fn says(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

#[test]
fn comments_and_literals_are_no_code() {
    for harmless in [
        "// unsafe\n",
        "/* a /* nested */ unsafe */",
        "\"unsafe \\\" unsafe\"",
        "r#\"unsafe \" unsafe\"#",
        "br\"\\\"; // unsafe",
        "'\"'; // unsafe \"",
        "'\\''; \"unsafe\"",
        "#![deny(unsafe_code)]",
    ] {
        assert!(!says(&code(harmless), "unsafe"), "{harmless}: {}", code(harmless));
    }
    for said in
        ["fn f<'a>(a: &'a u8) { unsafe {} }", "/* */unsafe", "\"\"; unsafe {}", "'a'; unsafe"]
    {
        assert!(says(&code(said), "unsafe"), "{said}");
    }
    assert_eq!(code("a\n/* b\n */ c").lines().count(), 3);
}
