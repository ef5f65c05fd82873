//! Everything that can happen, as data, with one line of text for each event.
//!
//! A trace is a list of these lines. What an event does not find (a mapping, a batch) makes it do
//! nothing, so that any sub-list of a trace is a trace.

use std::fmt;
use std::str::FromStr;

use view_core::Perm;
use view_core::suite::Stream;

use crate::bytes::{Label, stream_name};

/// One page of one VM, `vm:gfn` in traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageRef {
    /// Which VM.
    pub vm: u8,
    /// Which of its pages.
    pub gfn: u8,
}

/// A piece of the host's memory, `f2` or `r0` in traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phys {
    /// A frame that can back a page.
    Frame(u8),
    /// A frame of the pool of replicas.
    Replica(u8),
}

/// What either door is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Management: map the page.
    Map(Perm),
    /// Management: drop the mapping.
    Unmap,
    /// Management: a sealed copy for a stream.
    Export(Stream),
    /// Management: seal the page in its frame.
    Seal,
    /// Management: take the frame back.
    PageOut,
    /// Management: bring the page back in this frame.
    PageIn(u8),
    /// Management: end the page.
    Destroy,
    /// Trusted side: accept this frame.
    Accept(u8),
    /// Trusted side: the page is built.
    Launch,
    /// Owner: touched a page that it does not have.
    Touch,
    /// Owner: rang the doorbell to open the page.
    Share(Perm, Term),
    /// Owner: rang the doorbell to close it; or its time is over.
    Unshare,
    /// Owner: rang the doorbell to keep the page out of checkpoints, or to take it in again.
    Exclude(bool),
}

impl Ask {
    /// The ask as one number, for digests.
    pub const fn packed(self) -> u64 {
        const fn with(ask: u64, detail: u64) -> u64 {
            ask | detail << 8
        }
        match self {
            Self::Map(perm) => with(1, perm as u64),
            Self::Unmap => 2,
            Self::Export(stream) => with(3, stream as u64),
            Self::Seal => 4,
            Self::PageOut => 5,
            Self::PageIn(frame) => with(6, frame as u64),
            Self::Destroy => 7,
            Self::Accept(frame) => with(8, frame as u64),
            Self::Launch => 9,
            Self::Touch => 10,
            Self::Share(perm, term) => with(11, (perm as u64) << 4 | term as u64),
            Self::Unshare => 12,
            Self::Exclude(excluded) => with(13, excluded as u64),
        }
    }
}

impl Ask {
    /// The ask of the two low bytes of a [`packed`](Self::packed) number.
    pub const fn from_packed([ask, detail]: [u8; 2]) -> Self {
        const fn perm(bit: u8) -> Perm {
            if bit == Perm::Read as u8 { Perm::Read } else { Perm::ReadWrite }
        }
        match ask {
            1 => Self::Map(perm(detail)),
            2 => Self::Unmap,
            3 => Self::Export(match detail {
                1 => Stream::View,
                2 => Stream::Resident,
                _ => Stream::Image,
            }),
            4 => Self::Seal,
            5 => Self::PageOut,
            6 => Self::PageIn(detail),
            7 => Self::Destroy,
            8 => Self::Accept(detail),
            9 => Self::Launch,
            10 => Self::Touch,
            11 => Self::Share(
                perm(detail >> 4),
                match detail & 0xf {
                    0 => Term::Never,
                    1 => Term::Once,
                    _ => Term::Tick,
                },
            ),
            12 => Self::Unshare,
            _ => Self::Exclude(detail != 0),
        }
    }
}

/// How long a page is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// Until the owner closes it.
    Never,
    /// Until the management side first unmaps it.
    Once,
    /// Until the trusted side's clock ticks.
    Tick,
}

/// Whether a platform call fails before or after it did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultTime {
    /// Nothing was done.
    Early,
    /// Everything was done, and reported as failed.
    Late,
}

/// What the management side hands over as the sealed bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handed {
    /// Bytes of its own making.
    Forged,
    /// A sealed page that it was given once: this page's or another's, new or old.
    Known(Label),
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A guest CPU loads from a page.
    GuestLoad(u8, PageRef),
    /// A guest CPU stores new bytes to a page.
    GuestStore(u8, PageRef),
    /// The management side loads, through what a CPU has mapped or remembers.
    ManageLoad(u8, Phys),
    /// The management side stores, through what a CPU has mapped or remembers.
    ManageStore(u8, Phys),
    /// The management side maps a frame that is nobody's.
    ManageMap(u8),
    /// The management side offers a frame to a page.
    Offer(u8, PageRef),
    /// The management side takes an offer back.
    Retract(u8, PageRef),
    /// The management side puts sealed bytes where a page-in will fetch them.
    Hand(PageRef, Handed),
    /// The management side says that a page is harmless. Nobody should listen.
    Claim(PageRef),
    /// A CPU claims a page, decides, and begins a batch with the plan.
    Begin(u8, PageRef, Ask),
    /// The same, and the plan joins the CPU's batch.
    Join(u8, PageRef, Ask),
    /// A CPU takes one step of its batch; when none is left, it commits.
    Step(u8),
    /// A CPU drops its batch.
    Drop(u8),
    /// A CPU takes one step of its batch, and the platform fails.
    Fault(u8, FaultTime),
    /// The trusted side ends the building of a VM.
    LaunchVm(u8),
    /// The trusted side's clock ticks.
    Tick,
    /// The host crashes and starts again: memory is lost, sealed pages are not.
    Restart,
}

impl Event {
    /// Whether the rows of the core's table, and what is handed over, are certainly as before.
    pub(crate) const fn leaves_rows(self) -> bool {
        matches!(
            self,
            Self::GuestLoad(..)
                | Self::GuestStore(..)
                | Self::ManageLoad(..)
                | Self::ManageStore(..)
                | Self::ManageMap(_)
                | Self::Offer(..)
                | Self::Retract(..)
                | Self::Tick
        )
    }
}

impl fmt::Display for PageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.vm, self.gfn)
    }
}

impl fmt::Display for Phys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(number) => write!(f, "f{number}"),
            Self::Replica(number) => write!(f, "r{number}"),
        }
    }
}

const fn perm_name(perm: Perm) -> &'static str {
    match perm {
        Perm::Read => "read",
        Perm::ReadWrite => "write",
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(perm) => write!(f, "map {}", perm_name(*perm)),
            Self::Unmap => f.write_str("unmap"),
            Self::Export(stream) => write!(f, "export {}", stream_name(*stream)),
            Self::Seal => f.write_str("seal"),
            Self::PageOut => f.write_str("page-out"),
            Self::PageIn(frame) => write!(f, "page-in f{frame}"),
            Self::Destroy => f.write_str("destroy"),
            Self::Accept(frame) => write!(f, "accept f{frame}"),
            Self::Launch => f.write_str("launch"),
            Self::Touch => f.write_str("touch"),
            Self::Share(perm, Term::Never) => write!(f, "share {} never", perm_name(*perm)),
            Self::Share(perm, Term::Once) => write!(f, "share {} once", perm_name(*perm)),
            Self::Share(perm, Term::Tick) => write!(f, "share {} tick", perm_name(*perm)),
            Self::Unshare => f.write_str("unshare"),
            Self::Exclude(true) => f.write_str("exclude"),
            Self::Exclude(false) => f.write_str("include"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestLoad(cpu, page) => write!(f, "cpu{cpu} guest load {page}"),
            Self::GuestStore(cpu, page) => write!(f, "cpu{cpu} guest store {page}"),
            Self::ManageLoad(cpu, phys) => write!(f, "cpu{cpu} management load {phys}"),
            Self::ManageStore(cpu, phys) => write!(f, "cpu{cpu} management store {phys}"),
            Self::ManageMap(frame) => write!(f, "management map f{frame}"),
            Self::Offer(frame, page) => write!(f, "management offer f{frame} {page}"),
            Self::Retract(frame, page) => write!(f, "management retract f{frame} {page}"),
            Self::Hand(page, Handed::Forged) => write!(f, "management hand {page} forged"),
            Self::Hand(page, Handed::Known(label)) => write!(f, "management hand {page} {label}"),
            Self::Claim(page) => write!(f, "management claim {page}"),
            Self::Begin(cpu, page, ask) => write!(f, "cpu{cpu} begin {page} {ask}"),
            Self::Join(cpu, page, ask) => write!(f, "cpu{cpu} join {page} {ask}"),
            Self::Step(cpu) => write!(f, "cpu{cpu} step"),
            Self::Drop(cpu) => write!(f, "cpu{cpu} drop"),
            Self::Fault(cpu, FaultTime::Early) => write!(f, "cpu{cpu} fault early"),
            Self::Fault(cpu, FaultTime::Late) => write!(f, "cpu{cpu} fault late"),
            Self::LaunchVm(vm) => write!(f, "vm{vm} launch"),
            Self::Tick => f.write_str("tick"),
            Self::Restart => f.write_str("restart"),
        }
    }
}

/// A line that is no event; carries the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoEvent(pub String);

impl fmt::Display for NoEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an event: {:?}", self.0)
    }
}

impl std::error::Error for NoEvent {}

impl FromStr for Event {
    type Err = NoEvent;

    fn from_str(line: &str) -> Result<Self, NoEvent> {
        let words: Vec<&str> = line.split_whitespace().collect();
        parse(&words).ok_or_else(|| NoEvent(line.to_owned()))
    }
}

fn parse(words: &[&str]) -> Option<Event> {
    match words {
        ["tick"] => Some(Event::Tick),
        ["restart"] => Some(Event::Restart),
        ["management", rest @ ..] => management(rest),
        [vm, "launch"] => Some(Event::LaunchVm(numbered("vm", vm)?)),
        [cpu, rest @ ..] => on_cpu(numbered("cpu", cpu)?, rest),
        [] => None,
    }
}

fn management(words: &[&str]) -> Option<Event> {
    match words {
        ["map", frame] => Some(Event::ManageMap(numbered("f", frame)?)),
        ["offer", frame, to] => Some(Event::Offer(numbered("f", frame)?, page(to)?)),
        ["retract", frame, from] => Some(Event::Retract(numbered("f", frame)?, page(from)?)),
        ["hand", to, "forged"] => Some(Event::Hand(page(to)?, Handed::Forged)),
        ["hand", to, seal] => Some(Event::Hand(page(to)?, Handed::Known(label(seal)?))),
        ["claim", which] => Some(Event::Claim(page(which)?)),
        _ => None,
    }
}

fn on_cpu(cpu: u8, words: &[&str]) -> Option<Event> {
    match words {
        ["guest", "load", from] => Some(Event::GuestLoad(cpu, page(from)?)),
        ["guest", "store", to] => Some(Event::GuestStore(cpu, page(to)?)),
        ["management", "load", from] => Some(Event::ManageLoad(cpu, phys(from)?)),
        ["management", "store", to] => Some(Event::ManageStore(cpu, phys(to)?)),
        ["begin", which, asked @ ..] => Some(Event::Begin(cpu, page(which)?, ask(asked)?)),
        ["join", which, asked @ ..] => Some(Event::Join(cpu, page(which)?, ask(asked)?)),
        ["step"] => Some(Event::Step(cpu)),
        ["drop"] => Some(Event::Drop(cpu)),
        ["fault", "early"] => Some(Event::Fault(cpu, FaultTime::Early)),
        ["fault", "late"] => Some(Event::Fault(cpu, FaultTime::Late)),
        _ => None,
    }
}

fn ask(words: &[&str]) -> Option<Ask> {
    Some(match words {
        ["map", rights] => Ask::Map(perm(rights)?),
        ["unmap"] => Ask::Unmap,
        ["export", to] => Ask::Export(stream(to)?),
        ["seal"] => Ask::Seal,
        ["page-out"] => Ask::PageOut,
        ["page-in", frame] => Ask::PageIn(numbered("f", frame)?),
        ["destroy"] => Ask::Destroy,
        ["accept", frame] => Ask::Accept(numbered("f", frame)?),
        ["launch"] => Ask::Launch,
        ["touch"] => Ask::Touch,
        ["share", rights, "never"] => Ask::Share(perm(rights)?, Term::Never),
        ["share", rights, "once"] => Ask::Share(perm(rights)?, Term::Once),
        ["share", rights, "tick"] => Ask::Share(perm(rights)?, Term::Tick),
        ["unshare"] => Ask::Unshare,
        ["exclude"] => Ask::Exclude(true),
        ["include"] => Ask::Exclude(false),
        _ => return None,
    })
}

fn numbered(prefix: &str, word: &str) -> Option<u8> {
    word.strip_prefix(prefix)?.parse().ok()
}

fn page(word: &str) -> Option<PageRef> {
    let (vm, gfn) = word.split_once(':')?;
    Some(PageRef { vm: vm.parse().ok()?, gfn: gfn.parse().ok()? })
}

fn phys(word: &str) -> Option<Phys> {
    numbered("f", word).map(Phys::Frame).or_else(|| numbered("r", word).map(Phys::Replica))
}

fn perm(word: &str) -> Option<Perm> {
    [Perm::Read, Perm::ReadWrite].into_iter().find(|perm| perm_name(*perm) == word)
}

fn stream(word: &str) -> Option<Stream> {
    let all = [Stream::View, Stream::Resident, Stream::Image];
    all.into_iter().find(|stream| stream_name(*stream) == word)
}

fn label(word: &str) -> Option<Label> {
    let mut parts = word.split('/');
    let stream = stream(parts.next()?)?;
    let PageRef { vm, gfn } = page(parts.next()?)?;
    let epoch = numbered("e", parts.next()?)?;
    let version = numbered("v", parts.next()?)?;
    parts.next().is_none().then_some(Label { vm, epoch, gfn, version, stream })
}
