//! How commands talk: one line of JSON at the end, bars on a terminal, files that are whole or not
//! there, errors that say what to do.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use tempfile::NamedTempFile;

/// Why a command ended before its end.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It failed; in words for people.
    Words(String),
    /// Whoever read our output has enough of it.
    Unread,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => f.write_str(words),
            Self::Unread => f.write_str("nobody reads on"),
        }
    }
}

impl Failed {
    /// It failed for this reason.
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self::Words(words.into())
    }

    /// While doing `what`, this happened.
    pub(crate) fn while_doing(what: impl fmt::Display) -> impl Fn(&dyn fmt::Display) -> Self {
        move |error| Self::Words(format!("{what}: {error}"))
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Words(error.to_string())
    }
}

/// What a command returns.
pub(crate) type Outcome = Result<(), Failed>;

/// Prints one line, like `println!`; but who reads may leave early, as `head` does.
macro_rules! say {
    ($($words:tt)*) => { $crate::output::print(format_args!($($words)*)) };
}
pub(crate) use say;

/// What [`say!`] does.
pub(crate) fn print(words: fmt::Arguments<'_>) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{words}").map_err(|error| {
        let unread = error.kind() == io::ErrorKind::BrokenPipe;
        if unread { Failed::Unread } else { Failed::from(error) }
    })
}

/// Prints one line of JSON, the last of a command's standard output.
pub(crate) fn print_json(value: &serde_json::Value) -> Outcome {
    say!("{value}")
}

/// A bar on standard error, if that is a terminal.
pub(crate) fn bar(pages: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(pages);
    let style = "{msg:12} [{bar:40}] {pos}/{len} pages {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_message(what)
}

/// A file that appears under its name when it is whole. Until then the old file stays.
pub(crate) struct WholeFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl WholeFile {
    /// Begins a file beside where it will be.
    pub(crate) fn create(path: &Path) -> Result<Self, Failed> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new("."));
        let failed = Failed::while_doing(format!("{} can't be written", path.display()));
        let file = NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { file, path: path.to_owned() })
    }

    /// Gives it its name, once its bytes are safe on the disk.
    pub(crate) fn finish(self) -> Outcome {
        let path = self.path;
        let failed = |error: &dyn fmt::Display| {
            let name = path.display();
            let untouched = "what was there before is untouched";
            Failed::new(format!("{name} can't be written: {error}; {untouched}"))
        };
        let file = self.file.into_inner().map_err(|error| failed(&error.error()))?;
        file.as_file().sync_all().map_err(|error| failed(&error))?;
        file.persist(&path).map(|_| ()).map_err(|error| failed(&error.error))
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Sixteen bytes a line: offset, hex, text.
pub(crate) fn hex_line(offset: usize, bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{offset:04x}  {:47}  |{}|", hex.join(" "), printable(bytes))
}

/// Printable ASCII, with dots for the rest.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let printable = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
    bytes.iter().map(printable).collect()
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
