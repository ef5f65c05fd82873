//! The whole in ten seconds: boot, look from both sides, snapshot, restore, three attacks.

mod attacks;
mod kvm;
mod simulated;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use frontend_kvm::abi::gfn;
use frontend_kvm::control::client::SeenPage;
use serde_json::json;
use view_core::image::ImageRoot;
use view_core::{PAGE_SIZE, Page, PageState};

use crate::output::{Failed, Outcome, hex, print_json, printable, say};
use crate::picture;

/// How long a guest may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// KVM where it works, the simulated machine elsewhere
    Auto,
    /// A real guest
    Kvm,
    /// The simulated machine
    Sim,
}

/// Show the whole in ten seconds.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// What the guest runs on
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    platform: Wanted,
    /// The guest's memory in pages of 4 KiB
    #[arg(long, default_value_t = 0x800, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0x800..=0x4_0000))]
    pages: u32,
    /// Where the picture of the guest's pages goes
    #[arg(long, default_value = "pageveil-demo.svg", value_name = "FILE")]
    svg: PathBuf,
    /// One line of JSON, the last on standard output
    #[arg(long)]
    json: bool,
}

/// A sealed image and what was told with it.
pub(super) struct Taken {
    pub(super) bytes: Vec<u8>,
    pub(super) stall: Duration,
}

/// What an image holds for who has the key.
pub(super) struct Opened {
    pub(super) root: ImageRoot,
    pub(super) pages_with_secret: u64,
}

/// A running guest, seen from both sides.
pub(super) trait Stage {
    /// The page as the guest has it. The trusted side's privilege.
    fn guest_page(&mut self, gfn: u64) -> Result<Page, Failed>;
    /// Pages as management gets them.
    fn look(&mut self, first: u64, count: u64) -> Result<Vec<SeenPage>, Failed>;
    /// What every page is.
    fn states(&mut self) -> Result<Vec<PageState>, Failed>;
    /// A sealed image of the running guest, as management gets it.
    fn snapshot(&mut self) -> Result<Taken, Failed>;
    /// Opens a whole image with the owner's key and counts the pages that hold `needle`.
    fn open(&self, image: &[u8], needle: &[u8]) -> Result<Opened, Failed>;
    /// A second VM from an image; running.
    fn restore(&self, image: &[u8], pinned: ImageRoot) -> Result<Box<dyn Stage>, Failed>;
    /// 32 bytes that only the guest and the trusted side can know.
    fn secret(&self) -> Vec<u8>;
    /// Lets the guest run for a while, where it does not run by itself.
    fn wait(&mut self);
}

/// What the demo found out.
#[derive(Default)]
struct Findings {
    pages: u64,
    private: u64,
    open: u64,
    bytes_scanned: u64,
    hits_guest: u64,
    hits_management: u64,
    hits_snapshot: u64,
    hits_opened: u64,
    snapshot_bytes: u64,
    stall: Duration,
    restored: bool,
    goes_on: bool,
    refused: u64,
    tried: u64,
}

impl Demo {
    pub(crate) fn run(self) -> Outcome {
        let begun = Instant::now();
        let (platform, mut stage) = self.stage()?;
        let mut found = Findings::default();
        let image = show(&mut *stage, &mut found)?;
        self.draw(&mut *stage, platform)?;
        bring_back(&mut *stage, &image, &mut found)?;
        attack(&mut *stage, &image, &mut found)?;
        say!(
            "All of it on {platform} in {:.1} s. The page map: {}",
            begun.elapsed().as_secs_f64(),
            self.svg.display()
        )?;
        if self.json {
            print_json(&found.json(platform))?;
        }
        found.judge()
    }

    fn stage(&self) -> Result<(&'static str, Box<dyn Stage>), Failed> {
        let pages = usize::try_from(self.pages)?;
        let simulated = || Ok(("sim", simulated::stage(pages)?));
        match self.platform {
            Wanted::Sim => {
                say!("A guest on the simulated machine, as asked; no hardware is involved.")?;
                simulated()
            }
            Wanted::Kvm => Ok(("kvm", kvm::stage(pages)?)),
            Wanted::Auto => match frontend_kvm::Kvm::usable() {
                Ok(()) => Ok(("kvm", kvm::stage(pages)?)),
                Err(why) => {
                    say!("No guest can run on KVM here ({why}).")?;
                    say!("So this is the simulated machine: same core, same ciphers, no CPU.")?;
                    simulated()
                }
            },
        }
    }

    fn draw(&self, stage: &mut dyn Stage, platform: &str) -> Outcome {
        let title = format!("What the demo's guest ({platform}) is to its manager");
        let svg = picture::page_map(&stage.states()?, &title);
        let failed = Failed::while_doing(self.svg.display());
        std::fs::write(&self.svg, svg).map_err(|error| failed(&error))
    }
}

/// Both sides of the same pages, and the search through everything that management gets.
fn show(stage: &mut dyn Stage, found: &mut Findings) -> Result<Taken, Failed> {
    await_mailbox(stage)?;
    let states = stage.states()?;
    found.pages = states.len() as u64;
    found.open = states.iter().filter(|state| state.terms().is_some()).count() as u64;
    let private = |state: &&PageState| matches!(state, PageState::Private | PageState::Replica);
    found.private = states.iter().filter(private).count() as u64;
    let megabytes = (states.len() * PAGE_SIZE) >> 20;
    say!(
        "1 A guest of {megabytes} MiB runs: {} pages private, {} opened by its own act.",
        found.private,
        found.open
    )?;
    for (what, gfn) in [("a secret of the guest", gfn::SECRET), ("its open mailbox", gfn::MAILBOX)]
    {
        side_by_side(stage, what, gfn)?;
    }
    let needle = stage.secret();
    for gfn in 0..found.pages {
        found.hits_guest += u64::from(contains(stage.guest_page(gfn)?.bytes(), &needle));
    }
    for first in (0..found.pages).step_by(64) {
        for page in stage.look(first, 64.min(found.pages - first))? {
            found.bytes_scanned += PAGE_SIZE as u64;
            found.hits_management += u64::from(contains(page.bytes.bytes(), &needle));
        }
    }
    say!(
        "4 The secret is in {} pages of the guest, and in {} of the {} bytes management gets.",
        found.hits_guest,
        found.hits_management,
        found.bytes_scanned
    )?;
    let image = stage.snapshot()?;
    found.snapshot_bytes = image.bytes.len() as u64;
    found.stall = image.stall;
    found.hits_snapshot = count(&image.bytes, &needle);
    say!(
        "5 A snapshot while it runs: {} bytes, a halt of {:.1} ms; the secret found {} times.",
        found.snapshot_bytes,
        found.stall.as_secs_f64() * 1e3,
        found.hits_snapshot
    )?;
    Ok(image)
}

fn side_by_side(stage: &mut dyn Stage, what: &str, gfn: u64) -> Outcome {
    let number = if gfn == gfn::SECRET { 2 } else { 3 };
    let plain = stage.guest_page(gfn)?;
    let seen = stage.look(gfn, 1)?.into_iter().next().ok_or(Failed::new("no page came back"))?;
    say!("{number} Page {gfn:#x}, {what}:   guest | management")?;
    let lines = plain.bytes().chunks(16).zip(seen.bytes.bytes().chunks(16)).take(2);
    for (plain, seen) in lines {
        say!("    {} {} | {} {}", hex(plain), printable(plain), hex(seen), printable(seen))?;
    }
    Ok(())
}

/// A second VM from the image, and whether it goes on where the first was.
fn bring_back(stage: &mut dyn Stage, image: &Taken, found: &mut Findings) -> Outcome {
    let opened = stage.open(&image.bytes, &stage.secret())?;
    found.hits_opened = opened.pages_with_secret;
    let mut second = stage.restore(&image.bytes, opened.root)?;
    found.restored = true;
    let first = counter(&mut *second)?;
    let mut last = first;
    let since = Instant::now();
    while last <= first + 100 && since.elapsed() < PATIENCE {
        second.wait();
        last = counter(&mut *second)?;
    }
    found.goes_on = first > 0 && last > first;
    say!(
        "6 Restored under the owner's key in a second VM: the secret is in {} pages again, and the \
         guest counts on from {first} to {last}.",
        found.hits_opened
    )?;
    Ok(())
}

/// Three images that are not what they should be.
fn attack(stage: &mut dyn Stage, image: &Taken, found: &mut Findings) -> Outcome {
    let needle = stage.secret();
    let older = &image.bytes;
    stage.wait();
    let newer = stage.snapshot()?.bytes;
    let root = stage.open(&newer, &needle)?.root;
    for (number, (what, forged)) in attacks::all(older, &newer)?.into_iter().enumerate() {
        found.tried += 1;
        match stage.restore(&forged, root) {
            Err(refused) => {
                found.refused += 1;
                say!("{} {what}: refused. {refused}", number + 7)?;
            }
            Ok(_) => say!("{} {what}: ACCEPTED", number + 7)?,
        }
    }
    Ok(())
}

impl Findings {
    fn json(&self, platform: &str) -> serde_json::Value {
        json!({
            "platform": platform,
            "pages": self.pages,
            "pages_private": self.private,
            "pages_open": self.open,
            "bytes_scanned_management": self.bytes_scanned,
            "secret_hits_guest": self.hits_guest,
            "secret_hits_management": self.hits_management,
            "secret_hits_snapshot": self.hits_snapshot,
            "secret_hits_opened_with_key": self.hits_opened,
            "snapshot_bytes": self.snapshot_bytes,
            "stall_ms": self.stall.as_secs_f64() * 1e3,
            "restored": self.restored,
            "attacks_refused": self.refused,
            "attacks_tried": self.tried,
            "guest_continued": self.goes_on,
        })
    }

    /// A demo that shows a leak must not look like a success.
    fn judge(&self) -> Outcome {
        let wrong = [
            (self.hits_guest == 0, "the guest's secret is not in the guest"),
            (self.hits_opened == 0, "the owner's key does not open the secret"),
            (self.hits_management != 0, "management got the guest's secret"),
            (self.hits_snapshot != 0, "the snapshot holds the guest's secret in plain"),
            (self.refused != self.tried, "a forged image was accepted"),
            (!self.goes_on, "the restored guest does not go on"),
            (self.bytes_scanned != self.pages * PAGE_SIZE as u64, "not everything was searched"),
        ];
        match wrong.iter().find(|(failed, _)| *failed) {
            Some((_, words)) => Err(Failed::new(*words)),
            None => Ok(()),
        }
    }
}

fn await_mailbox(stage: &mut dyn Stage) -> Outcome {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let page = stage.guest_page(gfn::MAILBOX)?;
        let greeted = page.bytes().starts_with(&frontend_kvm::abi::mailbox::GREETING);
        let shared = stage.states()?.iter().any(|state| state.terms().is_some());
        if greeted && shared {
            return Ok(());
        }
        stage.wait();
    }
    Err(Failed::new("the guest did not open its mailbox"))
}

fn counter(stage: &mut dyn Stage) -> Result<u64, Failed> {
    let page = stage.guest_page(gfn::COUNTER_B)?;
    let (words, _) = page.bytes().as_chunks::<8>();
    Ok(words.first().map_or(0, |word| u64::from_le_bytes(*word)))
}

pub(super) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    count(haystack, needle) > 0
}

fn count(haystack: &[u8], needle: &[u8]) -> u64 {
    memchr::memmem::find_iter(haystack, needle).count() as u64
}
