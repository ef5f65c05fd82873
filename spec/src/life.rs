//! The life of one page as at a blackboard: what every ask leads to in every state, and in which
//! steps.
//!
//! It is states.md once more, in Rust, and knows nothing of the core that is held against it.

/// What a view may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Look.
    Read,
    /// Look and change.
    ReadWrite,
}

/// How long a page stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Its owner, or a deadline for it, closes it.
    Closed,
    /// The management side unmaps it for the first time.
    FirstUnmap,
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "states.md has a row for each")]
pub enum State {
    Free,
    Building,
    Private,
    Replica,
    Sealed,
    PagedOut,
    Open(Rights, Until),
    /// Shown while the steps of a page that ends are under way; no page rests in it.
    Scrubbing,
    Poisoned,
}

/// Where an exported page is headed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Somebody looks at it.
    View,
    /// A sealed image.
    Image,
}

/// What either door is asked for; frames by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "states.md has a row for each")]
pub enum Ask {
    Map(Rights),
    Unmap,
    Export(Stream),
    Seal,
    PageOut,
    PageIn(u8),
    Destroy,
    Accept(u8),
    Launch,
    Touch,
    Share(Rights, Until),
    Unshare,
    Exclude(bool),
}

/// What the platform is called for, in the order in which a batch goes through it. A fence follows
/// if anything was withdrawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// From how many views the page is withdrawn.
    pub withdraws: u8,
    /// The sealed bytes are fetched from the management side.
    pub fetches: bool,
    /// The page is sealed.
    pub seals: bool,
    /// The page is opened, if it is genuine.
    pub opens: bool,
    /// Copies are wiped.
    pub scrubs: bool,
    /// A view is granted the page.
    pub grants: bool,
}

impl State {
    /// Its name in states.md; an open page's terms are not part of it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "Free",
            Self::Building => "Building",
            Self::Private => "Private",
            Self::Replica => "Replica",
            Self::Sealed => "Sealed",
            Self::PagedOut => "PagedOut",
            Self::Open(..) => "Open",
            Self::Scrubbing => "Scrubbing",
            Self::Poisoned => "Poisoned",
        }
    }

    /// Whether a page in this state is in a frame.
    pub const fn has_frame(self) -> bool {
        !matches!(self, Self::Free | Self::PagedOut)
    }
}

impl Rights {
    /// Whether these rights include those.
    pub const fn allow(self, asked: Self) -> bool {
        matches!((self, asked), (Self::ReadWrite, _) | (Self::Read, Self::Read))
    }
}

impl Ask {
    /// Its name in states.md.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map(Rights::Read) => "Map(Read)",
            Self::Map(Rights::ReadWrite) => "Map(ReadWrite)",
            Self::Unmap => "Unmap",
            Self::Export(Stream::View) => "Export(View)",
            Self::Export(Stream::Image) => "Export(Image)",
            Self::Seal => "Seal",
            Self::PageOut => "PageOut",
            Self::PageIn(_) => "PageIn",
            Self::Destroy => "Destroy",
            Self::Accept(_) => "Accept",
            Self::Launch => "Launch",
            Self::Touch => "Touch",
            Self::Share(..) => "Share",
            Self::Unshare => "Unshare",
            Self::Exclude(_) => "Exclude",
        }
    }

    /// The frame that it is about.
    pub const fn frame(self) -> Option<u8> {
        if let Self::PageIn(frame) | Self::Accept(frame) = self { Some(frame) } else { None }
    }
}

/// What a page that rests in `state` becomes; `None` if the ask is refused. `launched` says that
/// its VM is.
pub const fn after(state: State, ask: Ask, launched: bool) -> Option<State> {
    use State as S;
    Some(match (ask, state) {
        (Ask::Map(_) | Ask::Unmap, S::Building) => state,
        (Ask::Map(Rights::Read), S::Private | S::Replica) => S::Replica,
        (Ask::Map(Rights::Read) | Ask::Unmap, S::Sealed) => state,
        (Ask::Map(asked), S::Open(rights, _)) if rights.allow(asked) => state,
        (Ask::Unmap, S::Replica | S::Open(_, Until::FirstUnmap)) => S::Private,
        (Ask::Unmap, S::Open(..)) => state,
        (Ask::Export(_), S::Private | S::Replica | S::Open(..)) => state,
        (Ask::Seal, S::Private | S::Replica) => S::Sealed,
        (Ask::PageOut, S::Private | S::Replica | S::Sealed) => S::PagedOut,
        (Ask::PageIn(_), S::PagedOut) => S::Sealed,
        (Ask::Destroy, S::Poisoned) => state,
        (
            Ask::Destroy,
            S::Building | S::Private | S::Replica | S::Sealed | S::PagedOut | S::Open(..),
        ) => S::Free,
        (Ask::Accept(_), S::Free) if launched => S::Private,
        (Ask::Accept(_), S::Free) => S::Building,
        (Ask::Launch, S::Building) => S::Private,
        (Ask::Touch, S::Sealed) => S::Private,
        (Ask::Share(rights, until), S::Private | S::Replica) => S::Open(rights, until),
        (Ask::Unshare, S::Open(..)) => S::Private,
        (
            Ask::Exclude(_),
            S::Building | S::Private | S::Replica | S::Sealed | S::PagedOut | S::Open(..),
        ) => state,
        _ => return None,
    })
}

/// Whether an ask that is not refused uses up a version: for a seal, and for opening and closing.
pub const fn burns(state: State, ask: Ask) -> bool {
    let closes = matches!((ask, state), (Ask::Unmap, State::Open(_, Until::FirstUnmap)));
    closes || steps(state, ask, true).seals || matches!(ask, Ask::Share(..) | Ask::Unshare)
}

/// The steps of an ask that is not refused.
pub const fn steps(state: State, ask: Ask, launched: bool) -> Steps {
    use State as S;
    const NONE: Steps = Steps {
        withdraws: 0,
        fetches: false,
        seals: false,
        opens: false,
        scrubs: false,
        grants: false,
    };
    match (ask, state) {
        (Ask::Map(_), S::Private) => Steps { seals: true, grants: true, ..NONE },
        (Ask::Map(_), S::Replica) => Steps { withdraws: 1, seals: true, grants: true, ..NONE },
        (Ask::Map(_), _) => Steps { grants: true, ..NONE },
        (Ask::Unmap, S::Replica) => Steps { withdraws: 1, scrubs: true, ..NONE },
        (Ask::Unmap, S::Open(_, Until::FirstUnmap)) => steps(state, Ask::Unshare, launched),
        (Ask::Unmap, _) => Steps { withdraws: 1, ..NONE },
        (Ask::Export(_), _) => Steps { seals: true, ..NONE },
        (Ask::Seal, S::Replica) => {
            Steps { withdraws: 2, seals: true, scrubs: true, grants: true, ..NONE }
        }
        (Ask::Seal, _) => Steps { withdraws: 1, seals: true, grants: true, ..NONE },
        (Ask::PageOut, S::Replica) => Steps { withdraws: 2, seals: true, scrubs: true, ..NONE },
        (Ask::PageOut, S::Sealed) => Steps { withdraws: 1, scrubs: true, ..NONE },
        (Ask::PageOut, _) => Steps { withdraws: 1, seals: true, scrubs: true, ..NONE },
        (Ask::PageIn(_), _) => Steps { withdraws: 1, fetches: true, ..NONE },
        (Ask::Destroy, S::PagedOut) => NONE,
        (Ask::Destroy, _) => Steps { withdraws: 2, scrubs: true, ..NONE },
        (Ask::Accept(_), _) => Steps { withdraws: 1, scrubs: true, grants: launched, ..NONE },
        (Ask::Launch | Ask::Unshare, _) => Steps { withdraws: 1, grants: true, ..NONE },
        (Ask::Touch, _) => Steps { withdraws: 1, opens: true, grants: true, ..NONE },
        (Ask::Share(..), S::Replica) => Steps { withdraws: 1, scrubs: true, grants: true, ..NONE },
        (Ask::Share(..), _) => Steps { grants: true, ..NONE },
        (Ask::Exclude(_), _) => NONE,
    }
}
