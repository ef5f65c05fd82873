//! What goes over the control socket: fixed little-endian frames with a bounded payload.
//!
//! Either side may be an enemy of the other: lengths are bounded before anything is read, unknown
//! numbers are errors, and padding must be zero.

use std::io::{self, Read, Write};

use view_core::suite::Tag;
use view_core::{MaskId, PAGE_SIZE, PageKind, PageState, Perm};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "pgvl": what every frame starts with.
const MAGIC: U32 = U32::new(0x6c76_6770);
/// The most bytes behind a frame.
pub const PAYLOAD_MAX: usize = 64 * (PAGE_SIZE + size_of::<Shown>());
/// The most pages in one answer.
pub const PAGES_MAX: u64 = 64;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Ask {
    /// What VM this is. No arguments; [`About`] comes back.
    About = 1,
    /// One byte for each of `b` pages from `a` on: [`state_code`].
    States = 2,
    /// `b` pages from `a` on as management sees them: [`Shown`] and the bytes of each.
    Read = 3,
    /// Store the payload at byte `b` of page `a`.
    Write = 4,
    /// A descriptor of the view file comes back; then the client sends its userfaultfd with the
    /// address of its mapping in `a` of a frame of the same kind.
    View = 5,
    /// Drop the mapping of page `a`: the next look is a fresh one.
    Unmap = 6,
    /// A sealed image, in frames of payload; the last one has none, and `a` and `b` tell the
    /// stall in microseconds and the sealed pages.
    Snapshot = 7,
    /// End the VM: wipe every page.
    Destroy = 8,
}

impl Ask {
    /// The number's meaning.
    ///
    /// # Errors
    /// [`WireError::Unknown`].
    pub const fn new(number: u16) -> Result<Self, WireError> {
        Ok(match number {
            1 => Self::About,
            2 => Self::States,
            3 => Self::Read,
            4 => Self::Write,
            5 => Self::View,
            6 => Self::Unmap,
            7 => Self::Snapshot,
            8 => Self::Destroy,
            other => return Err(WireError::Unknown(other)),
        })
    }
}

/// Why a conversation ends.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is gone, or the system failed.
    #[error("the socket: {0}")]
    Io(#[from] io::Error),
    /// What came can't be written where it was to go.
    #[error("it can't be written: {0}")]
    Sink(io::Error),
    /// What came is no frame.
    #[error("what came over the socket is not this protocol")]
    NotAFrame,
    /// There is no such request.
    #[error("there is no request number {0}")]
    Unknown(u16),
    /// More bytes than a frame may carry.
    #[error("{0} bytes are more than one answer can be")]
    TooLong(u64),
    /// The VM's side refused; its words.
    #[error("{0}")]
    Refused(String),
}

/// A request's or an answer's fixed part: 32 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Frame {
    magic: U32,
    /// The request's number; in an answer too.
    pub ask: U16,
    /// 0: done. 1: refused; the payload says why.
    pub status: U16,
    /// Bytes that follow.
    pub length: U64,
    /// First argument.
    pub a: U64,
    /// Second argument.
    pub b: U64,
}

impl Frame {
    /// A frame with arguments, without payload.
    pub const fn new(ask: Ask, a: u64, b: u64) -> Self {
        let (status, length) = (U16::new(0), U64::new(0));
        Self {
            magic: MAGIC,
            ask: U16::new(ask as u16),
            status,
            length,
            a: U64::new(a),
            b: U64::new(b),
        }
    }

    /// Sends it with a payload.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(mut self, to: &mut impl Write, payload: &[u8]) -> Result<(), WireError> {
        self.length = U64::new(payload.len() as u64);
        to.write_all(self.as_bytes())?;
        to.write_all(payload)?;
        Ok(to.flush()?)
    }

    /// The next frame and its payload; `None` if the other side hung up between two frames.
    ///
    /// # Errors
    /// [`WireError`]; the conversation is over.
    pub fn receive(from: &mut impl Read) -> Result<Option<(Self, Vec<u8>)>, WireError> {
        let mut bytes = [0; size_of::<Self>()];
        match from.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(some) => from.read_exact(bytes.get_mut(some..).unwrap_or_default())?,
            Err(error) => return Err(error.into()),
        }
        let frame = Self::read_from_bytes(&bytes).map_err(|_| WireError::NotAFrame)?;
        if frame.magic != MAGIC || frame.status.get() > 1 {
            return Err(WireError::NotAFrame);
        }
        let length = frame.length.get();
        if length > PAYLOAD_MAX as u64 {
            return Err(WireError::TooLong(length));
        }
        let mut payload = vec![0; usize::try_from(length).unwrap_or(PAYLOAD_MAX)];
        from.read_exact(&mut payload)?;
        Ok(Some((frame, payload)))
    }
}

/// What VM this is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct About {
    /// Its name for life.
    pub vm: [u8; 16],
    /// How often it was restored.
    pub epoch: U64,
    /// How many pages the guest has.
    pub pages: U64,
    /// Doorbells that were refused.
    pub refused: U64,
    /// 1: its vCPUs may run.
    pub runnable: U64,
    /// 1: a key has sealed so much that a new epoch is due.
    pub rekey_due: U64,
}

/// What comes with each page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Shown {
    /// Which page.
    pub gfn: U64,
    /// Of the seal, if there is one.
    pub version: U64,
    /// Of the seal, if there is one.
    pub epoch: U64,
    /// Of the seal, if there is one.
    pub tag: Tag,
    /// [`state_code`].
    pub state: u8,
    /// 1: the bytes are sealed under this version and tag.
    pub sealed: u8,
    /// What an open page was opened for.
    pub kind: u8,
    /// Which mask an open page has.
    pub mask: u8,
    /// Zero.
    pub padding: U32,
}

/// One byte for a page's state: the state in the low four bits, 16 for a writable open page.
pub const fn state_code(state: PageState) -> u8 {
    match state {
        PageState::Free => 0,
        PageState::Building => 1,
        PageState::Private => 2,
        PageState::Replica => 3,
        PageState::Sealed => 4,
        PageState::PagedOut => 5,
        PageState::Open { perm: Perm::Read, .. } => 6,
        PageState::Open { perm: Perm::ReadWrite, .. } => 6 | 16,
        PageState::Scrubbing => 7,
        PageState::Poisoned => 15,
    }
}

/// The state that a byte stands for; unknown ones are `Poisoned`.
pub const fn state_of(code: u8, kind: u8, mask: u8) -> PageState {
    match code & 15 {
        0 => PageState::Free,
        1 => PageState::Building,
        2 => PageState::Private,
        3 => PageState::Replica,
        4 => PageState::Sealed,
        5 => PageState::PagedOut,
        6 => {
            let mask = match MaskId::new(mask) {
                Some(mask) => mask,
                None => MaskId::ALL,
            };
            let perm = if code & 16 != 0 { Perm::ReadWrite } else { Perm::Read };
            PageState::Open { kind: PageKind(kind), perm, mask }
        }
        7 => PageState::Scrubbing,
        _ => PageState::Poisoned,
    }
}
