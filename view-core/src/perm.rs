//! What a view may do with a page, what the page is for, and which of its fields show.

/// Rights of a view over a page: reading is implied, writing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Perm {
    /// May read.
    Read,
    /// May read and write.
    ReadWrite,
}

impl Perm {
    /// Whether everything that `asked` may do is allowed by `self`.
    pub const fn allows(self, asked: Self) -> bool {
        matches!((self, asked), (Self::ReadWrite, _) | (Self::Read, Self::Read))
    }

    /// The byte that is authenticated with a page.
    pub const fn code(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::ReadWrite => 3,
        }
    }
}

/// What a page is for. Authenticated with its bytes; rules of the whitelist name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageKind(pub u8);

impl PageKind {
    /// Ordinary memory.
    pub const MEMORY: Self = Self(0);
    /// A mailbox that the guest shares by its own act.
    pub const MAILBOX: Self = Self(1);
}

/// Which field mask an open page has: an index into the masks that a VM was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaskId(u8);

impl MaskId {
    /// Every byte shows.
    pub const ALL: Self = Self(0);
    /// How many masks a VM can have, `ALL` included.
    pub const COUNT: u8 = 64;

    /// The mask with this number, if there can be one.
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT { Some(Self(number)) } else { None }
    }

    /// The plain number.
    pub const fn number(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_low_bits(bits: u8) -> Self {
        Self(bits & (Self::COUNT - 1))
    }
}
