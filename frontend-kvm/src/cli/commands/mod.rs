//! The commands and their arguments.

mod images;
mod manage;
mod run;

use std::path::PathBuf;

use clap::Subcommand;
use view_core::image::ImageRoot;

use crate::demo;
use crate::output::Outcome;

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole in ten seconds: a guest, both views of its pages, a snapshot, a restore,
    /// three attacks
    ///
    /// Runs on a real KVM guest where /dev/kvm works, and on the simulated machine where it
    /// does not; it says which. Writes a picture of the guest's pages.
    Demo(demo::Demo),
    /// Run a guest: the trusted process, which owns its memory and its keys
    Run(run::Run),
    /// Bring a guest back from a sealed image and run it
    ///
    /// The whole image is verified before anything runs; if anything is wrong, nothing is
    /// restored. The guest goes on in the next epoch, under fresh keys.
    Restore(run::Restore),
    /// Make a key file: 32 random bytes that only you can read
    ///
    /// Made by root, it becomes the trusted user's: root reads it all the same, but not from the
    /// jail.
    Keygen {
        /// Where to write it; must not exist
        file: PathBuf,
    },
    /// Show which page is what
    Map(manage::Map),
    /// Show what management gets to see of one page
    Peek(manage::Peek),
    /// Map the management side's whole view and watch it live
    View(manage::ViewArgs),
    /// Run a management tool where it can't reach the trusted process in other ways
    ///
    /// The tool runs in a Landlock domain, without the capabilities that would let it trace,
    /// inspect or become another process. It reads what its user may read, and writes to /tmp,
    /// /var/tmp and the folders that --write names.
    #[command(trailing_var_arg = true)]
    Jail {
        /// A folder that the tool may write to
        #[arg(long, value_name = "DIR")]
        write: Vec<PathBuf>,
        /// The tool and its arguments
        #[arg(required = true, value_name = "CMD")]
        command: Vec<std::ffi::OsString>,
    },
    /// Write the management side's view as an ELF core file, for readelf and gdb
    Dump(manage::Dump),
    /// Write a sealed image of the running guest
    ///
    /// The guest keeps running. Prints the image's root: give it to restore, and no other image
    /// of this guest, not even an older one, is accepted.
    Snapshot(manage::Snapshot),
    /// Show what an image says of itself. Needs no key, and proves nothing
    Inspect(images::Inspect),
    /// Verify a whole image under its owner's key, every page of it
    Verify(images::Verify),
}

impl Command {
    pub(crate) fn run(self) -> Outcome {
        match self {
            Self::Demo(demo) => demo.run(),
            Self::Run(run) => run.run(),
            Self::Restore(restore) => restore.run(),
            Self::Keygen { file } => images::keygen(&file),
            Self::Map(map) => map.run(),
            Self::Peek(peek) => peek.run(),
            Self::View(view) => view.run(),
            Self::Jail { write, command } => Err(frontend_kvm::jail::exec(&command, &write).into()),
            Self::Dump(dump) => dump.run(),
            Self::Snapshot(snapshot) => snapshot.run(),
            Self::Inspect(inspect) => inspect.run(),
            Self::Verify(verify) => verify.run(),
        }
    }
}

/// A root as people give it.
pub(crate) fn parse_root(text: &str) -> Result<ImageRoot, String> {
    text.parse().map_err(|error: view_core::image::NotARoot| error.to_string())
}

/// A page's number, decimal or 0x hexadecimal.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    let digits =
        text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    digits.map_err(|_| format!("{text} is no page number: write 1152 or 0x480"))
}

/// A size: bytes with an optional K, M or G.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is no size: write 64M or 1G");
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) if text.ends_with('K') => (digits, 1 << 10),
        Some(digits) if text.ends_with('M') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}
