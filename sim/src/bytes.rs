//! Symbolic bytes: what a page holds, as a term of Dolev and Yao instead of 4096 bytes.
//!
//! Sealing here is perfect by definition and keeps nothing secret from a debugger. It stands for
//! a suite in proofs about order and bookkeeping; ciphers are tested elsewhere.

use std::fmt;

use view_core::suite::{PageId, Stream, Tag};
use view_core::{Perm, VmNumber};

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bytes {
    /// Readable by whoever reaches it.
    Plain(Plain),
    /// Readable by whoever has the key.
    Sealed(Seal),
}

/// Bytes that are not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plain {
    /// Zeroes.
    Zero,
    /// Bytes that the management side chose or knows anyway.
    Public,
    /// The store with this number, made while the page was open or opened since: not a secret.
    Shared(u8),
    /// The store with this number, made in private: the management side must never see it.
    Secret(u8),
}

/// Which seal: what the record of a sealed page says about itself, believed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Whose key sealed it.
    pub vm: u8,
    /// In which incarnation.
    pub epoch: u8,
    /// Which page.
    pub gfn: u8,
    /// Which sealing of it.
    pub version: u8,
    /// Where it was headed.
    pub stream: Stream,
}

/// A sealed page: label, terms and what is inside. Only who has the key gets inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seal {
    /// What it says it is.
    pub label: Label,
    /// Kind, permissions, mask and exclusion in one number; authenticated like the label.
    pub terms: u8,
    /// What is sealed.
    pub inner: Plain,
}

impl Bytes {
    /// Zeroes.
    pub const ZERO: Self = Self::Plain(Plain::Zero);
    /// What the management side chose.
    pub const PUBLIC: Self = Self::Plain(Plain::Public);

    /// Whether reading this tells the management side what it must not know.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Plain(Plain::Secret(_)))
    }

    /// What becomes of the bytes when their owner opens the page.
    pub const fn declassified(self) -> Self {
        match self {
            Self::Plain(Plain::Secret(store)) => Self::Plain(Plain::Shared(store)),
            Self::Plain(_) | Self::Sealed(_) => self,
        }
    }

    /// The bytes as one number, for digests and tags. Equal numbers mean equal terms.
    pub fn packed(self) -> u64 {
        match self {
            Self::Plain(plain) => u64::from(plain.packed()),
            Self::Sealed(seal) => {
                let label = seal.label;
                let fields = [
                    1 + label.vm,
                    label.epoch,
                    label.gfn,
                    label.version,
                    label.stream as u8,
                    seal.terms,
                    seal.inner.packed(),
                ];
                fields.into_iter().fold(1, |word, field| word << 8 | u64::from(field))
            }
        }
    }
}

/// Set in the term of sealed bytes.
pub(crate) const SEALED: u32 = 1 << 31;
/// Where the term of sealed bytes names their page.
pub(crate) const PAGE_BITS: u32 = 7 << 28;

impl Bytes {
    /// The bytes as a number that fits a packed state: below 2^31 for plain ones. What
    /// explorations have no room for (seven versions, three epochs, four pages a VM, two VMs)
    /// would be folded; their bounds forbid it.
    pub const fn term(self) -> u32 {
        let seal = match self {
            Self::Plain(plain) => return plain.packed() as u32,
            Self::Sealed(seal) => seal,
        };
        let Label { vm, epoch, gfn, version, stream } = seal.label;
        let label = (vm as u32 & 1) << 30
            | (gfn as u32 & 3) << 28
            | (epoch as u32 & 3) << 26
            | (version as u32 & 7) << 23
            | (stream as u32) << 21;
        SEALED | label | (seal.terms as u32 & 0x7f) << 14 | seal.inner.packed() as u32
    }

    /// The bytes of a [`term`](Self::term).
    pub fn from_term(term: u32) -> Self {
        let [inner, ..] = term.to_le_bytes();
        if term & SEALED == 0 {
            return Self::Plain(Plain::unpacked(inner));
        }
        let bits = |shift: u32, mask: u32| {
            let [bits, ..] = (term >> shift & mask).to_le_bytes();
            bits
        };
        Self::Sealed(Seal {
            label: Label {
                vm: bits(30, 1),
                epoch: bits(26, 3),
                gfn: bits(28, 3),
                version: bits(23, 7),
                stream: stream_of(bits(21, 3)),
            },
            terms: bits(14, 0x7f),
            inner: Plain::unpacked(inner),
        })
    }

    /// The bytes of a [`packed`](Self::packed) number.
    pub fn from_packed(word: u64) -> Self {
        let [inner, terms, stream, version, gfn, epoch, vm, sealed] = word.to_le_bytes();
        if sealed == 0 {
            return Self::Plain(Plain::unpacked(inner));
        }
        Self::Sealed(Seal {
            label: Label { vm: vm - 1, epoch, gfn, version, stream: stream_of(stream) },
            terms,
            inner: Plain::unpacked(inner),
        })
    }
}

/// The [term](Bytes::term) of a [packed](Bytes::packed) number.
pub(crate) fn term_of_packed(word: u64) -> u32 {
    let [inner, terms, stream, version, gfn, epoch, vm, sealed] = word.to_le_bytes().map(u32::from);
    if sealed == 0 {
        return inner;
    }
    let page = ((vm - 1) & 1) << 30 | (gfn & 3) << 28;
    let sealing = (epoch & 3) << 26 | (version & 7) << 23 | (stream & 3) << 21;
    SEALED | page | sealing | (terms & 0x7f) << 14 | inner
}

const fn stream_of(number: u8) -> Stream {
    match number {
        1 => Stream::View,
        2 => Stream::Resident,
        _ => Stream::Image,
    }
}

const _: () = assert!(Stream::View as u8 == 1 && Stream::Resident as u8 == 2);

impl Plain {
    const fn unpacked(byte: u8) -> Self {
        match byte & 3 {
            0 => Self::Zero,
            1 => Self::Public,
            2 => Self::Shared(byte >> 2),
            _ => Self::Secret(byte >> 2),
        }
    }

    const fn packed(self) -> u8 {
        match self {
            Self::Zero => 0,
            Self::Public => 1,
            Self::Shared(store) => 2 | store << 2,
            Self::Secret(store) => 3 | store << 2,
        }
    }
}

impl Seal {
    /// Seals `bytes` as the core says. Sealing what is sealed already counts as public bytes: no
    /// sound machine does it.
    pub fn new(vm: VmNumber, id: &PageId, bytes: Bytes) -> Self {
        let inner = match bytes {
            Bytes::Plain(plain) => plain,
            Bytes::Sealed(_) => Plain::Public,
        };
        Self { label: Label::new(vm, id), terms: terms(id), inner }
    }

    /// Whether this is the seal that the verifier's own table describes.
    pub fn is(&self, vm: VmNumber, id: &PageId, tag: &Tag) -> bool {
        self.label == Label::new(vm, id) && self.terms == terms(id) && self.tag() == *tag
    }

    /// What stands for the synthetic IV: one number for each term.
    pub fn tag(&self) -> Tag {
        u128::from(Bytes::Sealed(*self).packed()).to_le_bytes()
    }
}

impl Label {
    /// The label that a page id stands for. Numbers beyond 255 do not occur within bounds.
    pub fn new(vm: VmNumber, id: &PageId) -> Self {
        let byte = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
        Self {
            vm: byte(u64::from(vm.0)),
            epoch: byte(id.epoch.0),
            gfn: byte(id.gfn.number()),
            version: byte(id.version.number()),
            stream: id.stream,
        }
    }
}

fn terms(id: &PageId) -> u8 {
    let writable = u8::from(id.perm == Perm::ReadWrite);
    let masked = u8::from(id.mask.number() != 0);
    (id.kind.0 & 0xf) | writable << 4 | masked << 5 | u8::from(id.excluded) << 6
}

/// A stream's name in traces.
pub const fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::View => "view",
        Stream::Resident => "resident",
        Stream::Image => "image",
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vm, epoch, gfn, version, stream } = self;
        write!(f, "{}/{vm}:{gfn}/e{epoch}/v{version}", stream_name(*stream))
    }
}
