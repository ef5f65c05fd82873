//! The trusted process: `run` and `restore`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use frontend_kvm::control::server::Server;
use frontend_kvm::trusted::{TrustedVm, random};
use frontend_kvm::{Kvm, Mode, Program, abi, harden};
use view_core::image::ImageRoot;
use view_core::key::RootKey;
use view_core::{PAGE_SIZE, VmId};
use zeroize::Zeroizing;

use super::{parse_root, parse_size};
use crate::output::{Failed, Outcome};

/// The guests that come with the tool.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Guest {
    /// Counts, rewrites pages, keeps a secret, shares a mailbox
    Counter,
    /// As counter, but takes its mailbox back and shares it again, with secrets in between
    Toggler,
    /// Counts and nothing else
    Spin,
    /// Asks for what it may not have
    Bad,
}

impl Guest {
    const fn mode(self) -> Mode {
        match self {
            Self::Counter => Mode::Counter,
            Self::Toggler => Mode::Toggler,
            Self::Spin => Mode::Spin,
            Self::Bad => Mode::Bad,
        }
    }
}

/// What every trusted process is told.
#[derive(Debug, Args)]
struct Trusted {
    /// Where management connects; only the user who starts this may, unless --allow-uid adds more
    #[arg(long, value_name = "SOCK")]
    control: PathBuf,
    /// The owner's key: 32 bytes, readable by its owner alone (see keygen)
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Run as this user once set up; started as root, a user of its own by default
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Another user who may manage the guest
    #[arg(long, value_name = "UID")]
    allow_uid: Vec<u32>,
}

/// Run a guest.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Which guest
    #[arg(value_enum)]
    guest: Guest,
    /// Its memory: 8M to 1G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    mem: u64,
    #[command(flatten)]
    trusted: Trusted,
}

impl Run {
    pub(crate) fn run(self) -> Outcome {
        let pages = pages(self.mem)?;
        let key = key_file(&self.trusted.key_file, self.trusted.uid)?;
        let kvm = open_kvm()?;
        let entropy = Zeroizing::new(random::<32>()?);
        let program = Program::new(self.guest.mode(), &entropy);
        let vm = TrustedVm::boot(&kvm, &key, VmId(random()?), pages, &program)?;
        drop((key, program, kvm));
        self.trusted.serve(vm)
    }
}

/// Bring a guest back from a sealed image.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The image
    file: PathBuf,
    /// Accept only the image with this root
    #[arg(long, value_name = "HEX", value_parser = parse_root)]
    root: Option<ImageRoot>,
    #[command(flatten)]
    trusted: Trusted,
}

impl Restore {
    pub(crate) fn run(self) -> Outcome {
        let failed = Failed::while_doing(self.file.display());
        let key = key_file(&self.trusted.key_file, self.trusted.uid)?;
        let image = File::open(&self.file).map_err(|error| failed(&error))?;
        let kvm = open_kvm()?;
        let vm = TrustedVm::restore(&kvm, &key, &image, self.root).map_err(|e| failed(&e))?;
        drop((key, image, kvm));
        self.trusted.serve(vm)
    }
}

impl Trusted {
    /// A confined process can't remove its socket when it ends, so a stale one is removed here:
    /// one that nobody listens at.
    fn listen(&self) -> Result<UnixListener, Failed> {
        let path = &self.control;
        let stale = UnixStream::connect(path)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        // Any other file refuses connections too, and somebody may need it.
        if stale && is_socket(path) {
            std::fs::remove_file(path).map_err(|error| {
                Failed::new(format!(
                    "{}: nobody listens there, and it stays: {error}",
                    path.display()
                ))
            })?;
        }
        UnixListener::bind(path).map_err(|error| {
            let hint = "end the trusted process that uses it, or name another";
            Failed::new(format!("{}: {error}; {hint}", path.display()))
        })
    }

    /// Gives up every right that is not needed any more, lets the guest run, and answers
    /// management until a signal or a manager ends it. Then every page is wiped.
    fn serve(self, vm: TrustedVm) -> Outcome {
        let failed = Failed::while_doing(self.control.display());
        let listener = self.listen()?;
        let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self")?);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(if self.allow_uid.is_empty() {
            0o600
        } else {
            0o666
        });
        std::fs::set_permissions(&self.control, mode).map_err(|error| failed(&error))?;
        let over = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&over))?;
        }
        let settled = vm.settle(self.uid)?;
        let vm = Arc::new(vm);
        vm.start()?;
        let allowed = [vec![me], self.allow_uid.clone()].concat();
        let server = Server::new(Arc::clone(&vm), allowed)?;
        let listening = Arc::clone(&server);
        let thread = std::thread::Builder::new().name("pageveil-listen".into());
        let thread = thread.spawn(move || listening.listen(&listener))?;
        // The usual hook would open this program's own file, which ends a confined process.
        std::panic::set_hook(Box::new(|panic| eprintln!("pageveil: {panic}")));
        harden::confine()?;
        eprintln!(
            "pageveil: the guest runs; manage it over {} ({settled})",
            self.control.display()
        );
        while !over.load(Ordering::Relaxed) && !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        server.stop();
        let _ = thread.join();
        vm.destroy()?;
        eprintln!("pageveil: the guest is gone, every page of it wiped");
        Ok(())
    }
}

fn is_socket(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
}

fn pages(bytes: u64) -> Result<usize, Failed> {
    if !bytes.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Failed::new(format!("--mem {bytes} is not a whole number of 4 KiB pages")));
    }
    let pages = bytes / PAGE_SIZE as u64;
    if !(abi::PAGES_MIN..=abi::PAGES_MAX).contains(&pages) {
        return Err(Failed::new(format!("--mem {bytes} is no size for a guest: 8M to 1G")));
    }
    usize::try_from(pages).map_err(Failed::from)
}

fn open_kvm() -> Result<Kvm, Failed> {
    Kvm::open().map_err(|why| {
        let hint = "`pageveil demo --platform sim` shows everything on the simulated machine";
        Failed::new(format!("no guest can run here: {why}; {hint}"))
    })
}

/// The owner's key, if its file is kept as a key should be.
pub(crate) fn key_file(path: &Path, trusted: Option<u32>) -> Result<RootKey, Failed> {
    let trusted = trusted.unwrap_or(harden::TRUSTED_USER);
    harden::read_key_file(path, trusted).map_err(Failed::from)
}
