//! The life of one page: every state, both doors, and the whole transition table.
//!
//! The table looks and decides; it changes nothing. There are two doors with two vocabularies:
//! [`Request`] for the management side, [`Act`] for the owner and the trusted side. Management has
//! no word for "share". The table is spec/states.md, row by row.

use crate::addr::Frame;
use crate::perm::{MaskId, PageKind, Perm};
use crate::platform::{Copies, Place, Source, View, What};
use crate::suite::Stream;
use crate::whitelist::{Evidence, Expiry};

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageState {
    /// Backed by nothing.
    Free,
    /// Being filled before launch; raw for whoever builds the VM, closed to the guest.
    Building,
    /// Plain for the owner, closed to the management side.
    Private,
    /// Plain for the owner; the management side holds a sealed snapshot.
    Replica,
    /// Sealed in its own frame; the owner gets it back by touching it.
    Sealed,
    /// Its frame was given back; the sealed bytes are with the management side.
    PagedOut,
    /// Whitelisted: the management side sees it, on evidence, within permissions and mask.
    Open {
        /// What it was opened for.
        kind: PageKind,
        /// What the management side may do with it.
        perm: Perm,
        /// Which of its bytes show.
        mask: MaskId,
    },
    /// Being wiped. Seen by onlookers only, while the page is held.
    Scrubbing,
    /// Something failed half way: closed to every view for good.
    Poisoned,
}

impl PageState {
    /// The terms on which a page is open; `None` if it is not.
    pub const fn terms(self) -> Option<(PageKind, Perm, MaskId)> {
        if let Self::Open { kind, perm, mask } = self { Some((kind, perm, mask)) } else { None }
    }
}

/// What the management side can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Map the page: a sealed replica, an open page, or raw memory of a VM being built.
    Map(Perm),
    /// Drop the mapping. What was written to a replica is discarded with it.
    Unmap,
    /// A sealed copy for a stream, without a mapping.
    Export(Stream),
    /// Seal the page in its own frame, away from its owner.
    Seal,
    /// Give the frame back; the sealed bytes leave with the management side. Those of a page that
    /// is sealed already are not sent again: read them through a mapping first.
    PageOut,
    /// Bring the sealed bytes back in a frame offered for this page.
    PageIn(Frame),
    /// End the page: wipe every copy, then give the frame back.
    Destroy,
}

/// What the owner does, and what the trusted side does for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Accept a frame that was offered for this page. It is wiped first.
    Accept(Frame),
    /// End of building: the page becomes the owner's.
    Launch,
    /// The owner touched a page that it does not have in plain.
    Touch,
    /// Open the page to the management side, on evidence.
    Share(Evidence, Perm, MaskId, Expiry),
    /// Close it again.
    Unshare,
    /// Leave the page out of checkpoints, or take it in again.
    Exclude(bool),
}

/// Why a request or an act was refused. The page is as it was, but for a version that may be burnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nothing backs the page, or its bytes are elsewhere.
    Absent,
    /// The page is there already.
    Present,
    /// The VM is still being built; wait for its launch.
    Building,
    /// The VM is launched; this is only for one being built.
    Launched,
    /// The page is sealed; its owner has to touch it first.
    NotResident,
    /// There is no mapping to drop.
    NotMapped,
    /// The page is open already.
    AlreadyOpen,
    /// The page is not open.
    NotOpen,
    /// The view has all it asks for.
    NothingToDo,
    /// More than the page's permissions allow; a private page is never writable.
    Permission,
    /// The VM has no field mask with this number, or a masked page was to be writable.
    NoSuchMask,
    /// The evidence is about another page, VM or epoch.
    WrongEvidence,
    /// The frame was not offered for this page.
    NotOffered,
    /// As many pages are open as the VM's list can hold.
    ListFull,
    /// As many replicas are out as the pool can hold; unmap one first.
    PoolFull,
    /// The page has no version left to be sealed under.
    VersionsSpent,
    /// Something failed half way before; the page is closed for good.
    Poisoned,
}

/// Which views lose the page before anything else happens.
pub(crate) type Withdrawals = [Option<View>; 2];

/// What the table answers: steps by phase, and what is true afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) withdraw: Withdrawals,
    pub(crate) fetch: bool,
    pub(crate) seal: Option<(Source, Place, Stream)>,
    pub(crate) open: bool,
    pub(crate) scrub: Option<Copies>,
    pub(crate) grant: Option<(View, What, Perm)>,
    pub(crate) after: PageState,
    /// Whether a version is used up: by a seal, or to tell two lives of the page apart.
    pub(crate) burns_version: bool,
    /// Whether checkpoints leave the page out from now on, if that changes.
    pub(crate) after_excluded: Option<bool>,
}

impl Decision {
    /// No step at all.
    pub(crate) const fn stay(after: PageState) -> Self {
        Self {
            withdraw: [None, None],
            fetch: false,
            seal: None,
            open: false,
            scrub: None,
            grant: None,
            after,
            burns_version: false,
            after_excluded: None,
        }
    }

    const fn taken_from_owner(mut self) -> Self {
        self.withdraw = [Some(View::Owner), None];
        self
    }

    const fn taken_from_management(mut self) -> Self {
        self.withdraw = [None, Some(View::Management)];
        self
    }

    const fn taken_from_everybody(mut self) -> Self {
        self.withdraw = [Some(View::Owner), Some(View::Management)];
        self
    }

    const fn sealing(mut self, to: Place, stream: Stream) -> Self {
        self.seal = Some((Source::Frame, to, stream));
        self.burns_version = true;
        self
    }

    const fn wiping(mut self, copies: Copies) -> Self {
        self.scrub = Some(copies);
        self
    }

    const fn granting(mut self, view: View, what: What, perm: Perm) -> Self {
        self.grant = Some((view, what, perm));
        self
    }

    const fn burning(mut self) -> Self {
        self.burns_version = true;
        self
    }
}

const PLAIN_FOR_OWNER: (View, What, Perm) = (View::Owner, What::Plain, Perm::ReadWrite);

/// The management side's half of the table. `excluded` only matters to checkpoints; `once` says
/// that an open page closes with the management side's first unmap.
pub(crate) fn on_request(
    state: PageState,
    request: Request,
    excluded: bool,
    once: bool,
) -> Result<Decision, Refused> {
    match request {
        Request::Map(perm) => on_map(state, perm),
        Request::Unmap => on_unmap(state, once),
        Request::Export(stream) => on_export(state, stream, excluded),
        Request::Seal => on_seal(state),
        Request::PageOut => on_page_out(state),
        Request::PageIn(_) => on_page_in(state),
        Request::Destroy => on_destroy(state),
    }
}

fn on_map(state: PageState, perm: Perm) -> Result<Decision, Refused> {
    use PageState as S;
    let replica = Decision::stay(S::Replica).sealing(Place::Replica, Stream::View).granting(
        View::Management,
        What::Replica,
        Perm::Read,
    );
    match (state, perm) {
        (S::Building, _) => Ok(Decision::stay(state).granting(View::Management, What::Plain, perm)),
        // [C2] A snapshot of the page, never the page; [I5] never writable.
        (S::Private, Perm::Read) => Ok(replica),
        // A second look is a new version: the old snapshot goes first.
        (S::Replica, Perm::Read) => Ok(replica.taken_from_management()),
        (S::Sealed, Perm::Read) => {
            Ok(Decision::stay(state).granting(View::Management, What::Sealed, Perm::Read))
        }
        (S::Open { perm: allowed, mask, .. }, asked) if allowed.allows(asked) => {
            Ok(Decision::stay(state).granting(View::Management, shown(mask), asked))
        }
        (S::Private | S::Replica | S::Sealed | S::Open { .. }, _) => Err(Refused::Permission),
        (S::Free | S::PagedOut, _) => Err(Refused::Absent),
        (S::Scrubbing | S::Poisoned, _) => Err(Refused::Poisoned),
    }
}

fn on_unmap(state: PageState, once: bool) -> Result<Decision, Refused> {
    use PageState as S;
    match state {
        S::Building | S::Sealed => Ok(Decision::stay(state).taken_from_management()),
        // [I5] The replica is wiped, not read: nothing ever flows back.
        S::Replica => {
            Ok(Decision::stay(S::Private).taken_from_management().wiping(Copies::Replica))
        }
        S::Open { .. } if once => on_unshare(state),
        S::Open { .. } => Ok(Decision::stay(state).taken_from_management()),
        S::Private => Err(Refused::NotMapped),
        S::Free | S::PagedOut => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_export(state: PageState, stream: Stream, excluded: bool) -> Result<Decision, Refused> {
    use PageState as S;
    match state {
        S::Private | S::Replica | S::Open { .. } => {
            let mut decision = Decision::stay(state).sealing(Place::Wire, stream);
            if excluded && stream == Stream::Image {
                decision.seal = Some((Source::Zeroes, Place::Wire, stream));
            }
            Ok(decision)
        }
        S::Building => Err(Refused::Building),
        S::Sealed => Err(Refused::NotResident),
        S::Free | S::PagedOut => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_seal(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    let sealed = Decision::stay(S::Sealed).sealing(Place::InPlace, Stream::Resident).granting(
        View::Management,
        What::Sealed,
        Perm::Read,
    );
    match state {
        S::Private => Ok(sealed.taken_from_owner()),
        S::Replica => Ok(sealed.taken_from_everybody().wiping(Copies::Replica)),
        S::Open { .. } => Err(Refused::AlreadyOpen),
        S::Building => Err(Refused::Building),
        S::Sealed => Err(Refused::NothingToDo),
        S::Free | S::PagedOut => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_page_out(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    let out = Decision::stay(S::PagedOut);
    match state {
        S::Private => Ok(out
            .sealing(Place::Wire, Stream::Resident)
            .taken_from_owner()
            .wiping(Copies::Original)),
        S::Replica => Ok(out
            .sealing(Place::Wire, Stream::Resident)
            .taken_from_everybody()
            .wiping(Copies::All)),
        // The management side has read the sealed bytes through its mapping; they keep their tag.
        S::Sealed => Ok(out.taken_from_management().wiping(Copies::Original)),
        S::Open { .. } => Err(Refused::AlreadyOpen),
        S::Building => Err(Refused::Building),
        S::Free | S::PagedOut => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_page_in(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    match state {
        S::PagedOut => {
            let mut decision = Decision::stay(S::Sealed).taken_from_management();
            decision.fetch = true;
            Ok(decision)
        }
        S::Free => Err(Refused::Absent),
        S::Building | S::Private | S::Replica | S::Sealed | S::Open { .. } => Err(Refused::Present),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_destroy(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    let wiped = Decision::stay(S::Free).taken_from_everybody().wiping(Copies::All);
    match state {
        S::Building | S::Private | S::Replica | S::Sealed | S::Open { .. } => Ok(wiped),
        // Its frame is gone; there is nothing left to wipe.
        S::PagedOut => Ok(Decision::stay(S::Free)),
        // Wiped like any other, but what failed once is never handed out again.
        S::Scrubbing | S::Poisoned => Ok(Decision { after: S::Poisoned, ..wiped }),
        S::Free => Err(Refused::Absent),
    }
}

/// The owner's and the trusted side's half of the table.
pub(crate) fn on_act(state: PageState, act: &Act, launched: bool) -> Result<Decision, Refused> {
    match act {
        Act::Accept(_) => on_accept(state, launched),
        Act::Launch => on_launch(state),
        Act::Touch => on_touch(state),
        Act::Share(evidence, perm, mask, _) => on_share(state, evidence.kind(), *perm, *mask),
        Act::Unshare => on_unshare(state),
        Act::Exclude(_) => on_exclude(state),
    }
}

fn on_accept(state: PageState, launched: bool) -> Result<Decision, Refused> {
    use PageState as S;
    match state {
        // [M7] Whatever the frame held, the page starts as zeroes.
        S::Free => {
            let wiped =
                |after| Decision::stay(after).taken_from_management().wiping(Copies::Original);
            if launched {
                let (view, what, perm) = PLAIN_FOR_OWNER;
                Ok(wiped(S::Private).granting(view, what, perm))
            } else {
                Ok(wiped(S::Building))
            }
        }
        S::Building | S::Private | S::Replica | S::Sealed | S::PagedOut | S::Open { .. } => {
            Err(Refused::Present)
        }
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_launch(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    let (view, what, perm) = PLAIN_FOR_OWNER;
    match state {
        S::Building => {
            Ok(Decision::stay(S::Private).taken_from_management().granting(view, what, perm))
        }
        S::Free => Err(Refused::Absent),
        S::Private | S::Replica | S::Sealed | S::PagedOut | S::Open { .. } => {
            Err(Refused::Launched)
        }
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_touch(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    let (view, what, perm) = PLAIN_FOR_OWNER;
    match state {
        S::Sealed => {
            let mut decision =
                Decision::stay(S::Private).taken_from_management().granting(view, what, perm);
            decision.open = true;
            Ok(decision)
        }
        S::Private | S::Replica | S::Open { .. } => Err(Refused::NothingToDo),
        S::Building => Err(Refused::Building),
        S::Free | S::PagedOut => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_share(
    state: PageState,
    kind: PageKind,
    perm: Perm,
    mask: MaskId,
) -> Result<Decision, Refused> {
    use PageState as S;
    // A masked view is a copy: what is written to it would go nowhere.
    if mask != MaskId::ALL && perm == Perm::ReadWrite {
        return Err(Refused::NoSuchMask);
    }
    let open = Decision::stay(S::Open { kind, perm, mask }).burning().granting(
        View::Management,
        shown(mask),
        perm,
    );
    match state {
        S::Private => Ok(open),
        S::Replica => Ok(open.taken_from_management().wiping(Copies::Replica)),
        S::Open { .. } => Err(Refused::AlreadyOpen),
        S::Building => Err(Refused::Building),
        S::Sealed => Err(Refused::NotResident),
        S::Free | S::PagedOut => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_unshare(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    let (view, what, perm) = PLAIN_FOR_OWNER;
    match state {
        // [C3] Gone from every CPU before the owner hears that the page is its own again.
        S::Open { .. } => Ok(Decision::stay(S::Private)
            .taken_from_management()
            .burning()
            .granting(view, what, perm)),
        S::Building | S::Private | S::Replica | S::Sealed => Err(Refused::NotOpen),
        S::Free | S::PagedOut => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

fn on_exclude(state: PageState) -> Result<Decision, Refused> {
    use PageState as S;
    match state {
        S::Building | S::Private | S::Replica | S::Sealed | S::PagedOut | S::Open { .. } => {
            Ok(Decision::stay(state))
        }
        S::Free => Err(Refused::Absent),
        S::Scrubbing | S::Poisoned => Err(Refused::Poisoned),
    }
}

/// What the management side gets of an open page.
fn shown(mask: MaskId) -> What {
    if mask == MaskId::ALL { What::Plain } else { What::Masked(mask) }
}

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Absent => "nothing backs the page",
            Self::Present => "the page is there already",
            Self::Building => "the VM is still being built",
            Self::Launched => "the VM is launched already",
            Self::NotResident => "the page is sealed; its owner has to touch it first",
            Self::NotMapped => "there is no mapping to drop",
            Self::AlreadyOpen => "the page is open",
            Self::NotOpen => "the page is not open",
            Self::NothingToDo => "the view has all it asks for",
            Self::Permission => "that is more than the page's permissions allow",
            Self::NoSuchMask => "the VM has no such field mask for this use",
            Self::WrongEvidence => "the evidence is about another page",
            Self::NotOffered => "the frame was not offered for this page",
            Self::ListFull => "no more pages can be open at once",
            Self::PoolFull => "no more replicas can be out at once",
            Self::VersionsSpent => "the page has no version left to be sealed under",
            Self::Poisoned => "the page is poisoned and stays closed",
        })
    }
}

impl core::error::Error for Refused {}
