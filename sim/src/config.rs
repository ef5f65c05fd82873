//! Published configurations: how large a world is explored, and what must be met in it.

mod tlc;

use view_core::Perm;
use view_core::suite::Stream;

use crate::event::{Ask, Event, PageRef, Phys, Term};
use crate::machine::CPUS;
use crate::swarm::LONG;

/// The bounds of one exploration. Everything is finite because of them.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// How many pages each VM has.
    pub pages: &'static [u8],
    /// How many frames there are.
    pub frames: u8,
    /// How many replicas may be out at once.
    pub replicas: u8,
    /// How many CPUs run guests and the management side. Batches run on the first ones.
    pub cpus: u8,
    /// How often a page may be sealed.
    pub versions: u8,
    /// How many times guests store.
    pub stores: u8,
    /// How many batches may be in flight.
    pub batches: u8,
    /// How many plans a batch may have.
    pub plans: u8,
    /// How many plans may be made in all; [`u8::MAX`] is as many as versions allow.
    pub begins: u8,
    /// How many batches may be dropped.
    pub drops: u8,
    /// How many platform calls may fail.
    pub faults: u8,
    /// How often the host may crash.
    pub restarts: u8,
    /// Whether it takes too long for every test run.
    pub deep: bool,
    /// Whether pages are accepted and VMs launched before exploration begins.
    pub launched: bool,
    /// Whether the management side maps and writes frames that are nobody's.
    pub raw: bool,
    /// Which asks occur; frames in them stand for any frame.
    pub asks: &'static [Ask],
    /// The `sometimes` properties that have to be reached.
    pub reaches: &'static [&'static str],
}

const MAP: Ask = Ask::Map(Perm::Read);
const MAP_WRITABLE: Ask = Ask::Map(Perm::ReadWrite);
const SHARE: Ask = Ask::Share(Perm::Read, Term::Never);
const SHARE_WRITABLE: Ask = Ask::Share(Perm::ReadWrite, Term::Never);
const SHARE_ONCE: Ask = Ask::Share(Perm::Read, Term::Once);
const SHARE_TICK: Ask = Ask::Share(Perm::Read, Term::Tick);

/// Every kind of ask, for tests that go through the whole table.
pub const ALL_ASKS: &[Ask] = &[
    MAP,
    MAP_WRITABLE,
    Ask::Unmap,
    Ask::Export(Stream::View),
    Ask::Export(Stream::Image),
    Ask::Seal,
    Ask::PageOut,
    Ask::PageIn(0),
    Ask::Destroy,
    Ask::Accept(0),
    Ask::Launch,
    Ask::Touch,
    SHARE,
    SHARE_WRITABLE,
    SHARE_ONCE,
    SHARE_TICK,
    Ask::Unshare,
    Ask::Exclude(true),
    Ask::Exclude(false),
];

/// One page, two CPUs, one batch, one crash: the default.
pub const PAGE: Config = Config {
    name: "page",
    purpose: "one page and everything that can be done to it, one batch at a time",
    pages: &[1],
    frames: 1,
    replicas: 1,
    cpus: 2,
    versions: 2,
    stores: 1,
    batches: 1,
    plans: 1,
    begins: u8::MAX,
    drops: 1,
    faults: 0,
    restarts: 0,
    deep: false,
    launched: true,
    raw: true,
    asks: &[
        MAP,
        Ask::Unmap,
        Ask::Export(Stream::Image),
        Ask::Seal,
        Ask::PageOut,
        Ask::PageIn(0),
        Ask::Destroy,
        Ask::Accept(0),
        Ask::Touch,
        SHARE_WRITABLE,
        Ask::Unshare,
    ],
    reaches: &[
        "a guest read its page back after it was sealed",
        "the management side remembered a mapping that was withdrawn",
        "a forged page was refused and the VM stopped",
        "a plan was dropped before its first step",
        "a batch was dropped half way",
        "the management side wrote to an open page",
        "a frame was given back and offered again",
    ],
};

const DEFAULT: Config = Config {
    name: "default",
    purpose: "two guests of three pages in four frames on two CPUs; any four plans in a row",
    pages: &[3, 3],
    frames: 4,
    versions: 3,
    drops: 0,
    restarts: 1,
    begins: 4,
    deep: true,
    raw: false,
    asks: &[
        Ask::Accept(0),
        MAP,
        Ask::Unmap,
        Ask::Seal,
        Ask::PageOut,
        Ask::PageIn(0),
        Ask::Touch,
        SHARE,
        Ask::Unshare,
    ],
    reaches: &[
        "a guest read its page back after it was sealed",
        "the management side remembered a mapping that was withdrawn",
        "a frame was given back and offered again",
    ],
    ..PAGE
};

/// What tests and the command line know by name.
pub const CONFIGS: &[Config] = &[
    DEFAULT,
    Config {
        name: "build",
        purpose: "a VM is built, launched and used, with everything that may go wrong on the way",
        pages: &[1],
        launched: false,
        drops: 1,
        faults: 1,
        versions: 1,
        asks: &[
            MAP,
            MAP_WRITABLE,
            Ask::Unmap,
            Ask::Accept(0),
            Ask::Launch,
            Ask::Destroy,
            SHARE,
            Ask::Unshare,
        ],
        reaches: &["a page was filled by the management side and launched"],
        ..PAGE
    },
    PAGE,
    Config {
        name: "terms",
        cpus: 1,
        drops: 0,
        purpose: "pages open for once, until a deadline, to read; exclusion from checkpoints",
        asks: &[
            MAP,
            MAP_WRITABLE,
            Ask::Unmap,
            Ask::Export(Stream::Image),
            SHARE,
            SHARE_ONCE,
            SHARE_TICK,
            Ask::Unshare,
            Ask::Exclude(true),
            Ask::Exclude(false),
        ],
        raw: false,
        reaches: &[
            "a page closed because its time was over",
            "a page closed when it was first unmapped",
            "an excluded page was exported",
        ],
        ..PAGE
    },
    Config {
        name: "replay",
        purpose: "sealed pages come back forged, old, or swapped, with three versions",
        frames: 1,
        cpus: 1,
        versions: 3,
        stores: 3,
        drops: 0,
        raw: false,
        asks: &[
            MAP,
            Ask::Unmap,
            Ask::Export(Stream::Image),
            Ask::Seal,
            Ask::PageOut,
            Ask::PageIn(0),
            Ask::Touch,
        ],
        reaches: &["an older page was handed over", "a replica was handed over as a page"],
        ..PAGE
    },
    Config {
        name: "faults",
        purpose: "the platform fails at any call, before or after it did its work",
        faults: 1,
        drops: 0,
        versions: 2,
        raw: false,
        reaches: &["a platform call failed and the page was closed"],
        ..PAGE
    },
    Config {
        name: "pages",
        purpose: "two pages in two batches at once that compete for frames and one replica",
        pages: &[2],
        frames: 2,
        cpus: 1,
        versions: 1,
        batches: 2,
        drops: 0,
        raw: false,
        asks: &[MAP, Ask::Unmap, Ask::Seal, Ask::Touch, SHARE, Ask::Unshare],
        reaches: &["two batches were in flight"],
        ..PAGE
    },
    Config {
        name: "swap",
        purpose: "two pages are paged out and in, in each other's frames, with each other's bytes",
        pages: &[2],
        frames: 2,
        cpus: 1,
        versions: 1,
        drops: 0,
        raw: false,
        asks: &[Ask::PageOut, Ask::PageIn(0), Ask::Touch],
        reaches: &[
            "a frame changed hands between pages",
            "the sealed bytes of another page were handed over",
        ],
        ..PAGE
    },
    Config {
        name: "batch",
        purpose: "two plans in one batch that is dropped or fails at any step",
        pages: &[2],
        frames: 2,
        cpus: 1,
        versions: 1,
        plans: 2,
        drops: 1,
        faults: 1,
        raw: false,
        asks: &[MAP, Ask::Unmap, Ask::Seal, SHARE, Ask::Unshare],
        reaches: &["one fence served two pages"],
        ..PAGE
    },
    Config {
        name: "guests",
        purpose: "two VMs with a page each: frames and sealed pages of one offered to the other",
        pages: &[1, 1],
        frames: 2,
        cpus: 1,
        versions: 1,
        drops: 0,
        raw: false,
        asks: &[Ask::Seal, Ask::PageOut, Ask::PageIn(0), Ask::Touch],
        reaches: &["the sealed bytes of another VM were handed over"],
        ..PAGE
    },
    Config {
        name: "restart",
        purpose: "the host crashes and starts again; sealed pages of the life before come back",
        frames: 1,
        cpus: 1,
        versions: 2,
        stores: 2,
        drops: 1,
        restarts: 1,
        launched: false,
        raw: false,
        asks: &[Ask::Seal, Ask::PageOut, Ask::PageIn(0), Ask::Accept(0), Ask::Touch],
        reaches: &["the sealed bytes of an earlier life were handed over"],
        ..PAGE
    },
    Config {
        name: "names",
        purpose: "three pages and two frames that only their names tell apart",
        pages: &[3],
        frames: 2,
        cpus: 1,
        versions: 1,
        drops: 1,
        launched: false,
        raw: false,
        asks: &[Ask::Accept(0), MAP, Ask::Unmap],
        reaches: &["a plan was dropped before its first step"],
        ..PAGE
    },
    Config {
        name: "names-guests",
        purpose: "two VMs of two pages that only their names tell apart",
        pages: &[2, 2],
        frames: 2,
        cpus: 1,
        versions: 1,
        stores: 0,
        drops: 0,
        launched: false,
        raw: false,
        asks: &[Ask::Accept(0), Ask::Seal, Ask::Touch],
        reaches: &[],
        ..PAGE
    },
    tlc::VIEW,
    tlc::PAGE_OUT,
    tlc::TWO_PAGES,
    Config {
        name: "page-deep",
        purpose: "one page in either of two frames, two stores, one batch dropped, on one CPU",
        frames: 2,
        cpus: 1,
        raw: false,
        stores: 2,
        deep: true,
        reaches: &[],
        ..PAGE
    },
    Config {
        name: "pages-deep",
        purpose: "two pages in two batches at once, paged out and in, on two CPUs",
        pages: &[2],
        frames: 2,
        versions: 1,
        stores: 1,
        batches: 2,
        drops: 0,
        raw: false,
        deep: true,
        asks: &[
            MAP,
            Ask::Unmap,
            Ask::Seal,
            Ask::PageOut,
            Ask::PageIn(0),
            Ask::Touch,
            SHARE,
            Ask::Unshare,
        ],
        reaches: &[],
        ..PAGE
    },
    Config {
        name: "terms-deep",
        purpose: "every term of opening, three versions, two CPUs, one crash",
        asks: &[
            MAP,
            MAP_WRITABLE,
            Ask::Unmap,
            Ask::Export(Stream::Image),
            SHARE,
            SHARE_WRITABLE,
            SHARE_ONCE,
            SHARE_TICK,
            Ask::Unshare,
            Ask::Exclude(true),
            Ask::Exclude(false),
        ],
        raw: false,
        versions: 3,
        deep: true,
        reaches: &[],
        ..PAGE
    },
    Config {
        name: "guests-deep",
        purpose: "two VMs, two frames, replicas and raw mappings of frames on offer",
        pages: &[1, 1],
        frames: 2,
        cpus: 1,
        versions: 1,
        stores: 2,
        drops: 0,
        deep: true,
        asks: &[MAP, Ask::Seal, Ask::PageOut, Ask::PageIn(0), Ask::Touch],
        reaches: &[],
        ..PAGE
    },
];

impl Config {
    /// The published configuration with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CONFIGS.iter().chain([&LONG]).find(|config| config.name == name)
    }

    /// The pages that there are.
    pub fn page_refs(&self) -> impl Iterator<Item = PageRef> + use<> {
        (0_u8..)
            .zip(self.pages)
            .flat_map(|(vm, pages)| (0..*pages).map(move |gfn| PageRef { vm, gfn }))
    }

    /// What happens before exploration begins: VMs launched and every page accepted and private, if
    /// so configured. Pages that do not all fit have to be accepted on the way.
    pub fn setup(&self) -> Vec<Event> {
        if !self.launched {
            return Vec::new();
        }
        let vms = (0_u8..).zip(self.pages).map(|(vm, _)| Event::LaunchVm(vm));
        let fits = self.page_refs().count() <= usize::from(self.frames);
        let accepted = self.page_refs().filter(|_| fits);
        let pages = (0_u8..).zip(accepted).flat_map(|(frame, page)| {
            let accept = Event::Begin(0, page, Ask::Accept(frame));
            // Withdraw, fence, scrub, grant, commit.
            [Event::Offer(frame, page), accept].into_iter().chain([Event::Step(0); 5])
        });
        vms.chain(pages).collect()
    }

    /// The bounds in words, for reports.
    pub fn bounds(&self) -> String {
        format!(
            "pages {:?}, frames {}, replicas {}, cpus {}, versions {}, stores {}, batches {}, \
             plans {}{}, drops {}, faults {}, restarts {}",
            self.pages,
            self.frames,
            self.replicas,
            self.cpus,
            self.versions,
            self.stores,
            self.batches,
            self.plans,
            if self.begins == u8::MAX {
                String::new()
            } else {
                format!(", begins {}", self.begins)
            },
            self.drops,
            self.faults,
            self.restarts
        )
    }
}

impl Event {
    /// Whether every CPU, page and frame that the event names exists in a configuration.
    pub fn fits(self, config: &Config) -> bool {
        let cpu = |cpu: u8| usize::from(cpu) < CPUS;
        let page = |page: PageRef| config.page_refs().any(|known| known == page);
        let frame = |frame: u8| frame < config.frames;
        match self {
            Self::GuestLoad(on, of) | Self::GuestStore(on, of) => cpu(on) && page(of),
            Self::ManageLoad(on, at) | Self::ManageStore(on, at) => {
                cpu(on) && Phys::all().any(|known| known == at)
            }
            Self::ManageMap(of) => frame(of),
            Self::Offer(of, to) | Self::Retract(of, to) => frame(of) && page(to),
            Self::Hand(of, _) | Self::Claim(of) => page(of),
            Self::Begin(on, of, Ask::Accept(at) | Ask::PageIn(at))
            | Self::Join(on, of, Ask::Accept(at) | Ask::PageIn(at)) => {
                cpu(on) && page(of) && frame(at)
            }
            Self::Begin(on, of, _) | Self::Join(on, of, _) => cpu(on) && page(of),
            Self::Step(on) | Self::Drop(on) | Self::Fault(on, _) => cpu(on),
            Self::LaunchVm(vm) => usize::from(vm) < config.pages.len(),
            Self::Tick | Self::Restart => true,
        }
    }
}
