//! What the monitor starts above itself, as one file: a kernel, its initial file system, and its
//! command line.
//!
//! A loader of the PVH protocol gives QEMU's `-initrd` as its only module, so the three come in
//! one container. It begins with a [`Header`] that fills a page. Each part begins at a page, in the
//! order of the header's fields, behind the one before it; what is between them is zero, and means
//! nothing. All numbers are little-endian.
//!
//! Whoever writes a container asks [`Header::new`] where the parts go; whoever reads one checks its
//! header against the size of the file, once, by [`Header::checked`] or [`parse`].

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Parts begin at multiples of this, and the header has as many bytes.
pub const PAGE: u64 = 4096;

/// The longest command line, in bytes: what Linux takes on x86, without the zero at its end.
pub const COMMAND_LINE_MAX: u64 = 2047;

const MAGIC: [u8; 8] = *b"PVpayld1";

/// Where a part is in its container.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Part {
    offset: U64,
    length: U64,
}

/// The first page of a container.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    magic: [u8; 8],
    kernel: Part,
    initrd: Part,
    command_line: Part,
    rest: [u8; 4096 - 56],
}

const _: () = assert!(size_of::<Header>() as u64 == PAGE);

/// Why bytes are no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAPayload {
    /// They are fewer than a header has.
    Short(u64),
    /// They do not begin with the magic number.
    Magic,
    /// A part does not begin at a page.
    Unaligned(&'static str),
    /// A part begins before the end of what precedes it.
    Overlap(&'static str),
    /// A part ends behind the end of the file, or of all numbers.
    Outside(&'static str),
    /// A kernel without bytes.
    NoKernel,
    /// A command line of more than [`COMMAND_LINE_MAX`] bytes.
    CommandLine(u64),
}

impl core::fmt::Display for NotAPayload {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short(size) => write!(f, "{size} bytes are fewer than a header has"),
            Self::Magic => f.write_str("it does not begin as a payload does"),
            Self::Unaligned(part) => write!(f, "the {part} does not begin at a page"),
            Self::Overlap(part) => write!(f, "the {part} begins in what precedes it"),
            Self::Outside(part) => write!(f, "the {part} ends behind the end of the file"),
            Self::NoKernel => f.write_str("it has no kernel"),
            Self::CommandLine(length) => write!(f, "a command line of {length} bytes is too long"),
        }
    }
}

impl core::error::Error for NotAPayload {}

impl Part {
    /// Its first byte, counted from the container's.
    pub const fn offset(&self) -> u64 {
        self.offset.get()
    }

    /// How many bytes it has.
    pub const fn length(&self) -> u64 {
        self.length.get()
    }

    /// Its bytes in the container's; `None` if it is not in there.
    fn of<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let end = self.offset().checked_add(self.length())?;
        bytes.get(usize::try_from(self.offset()).ok()?..usize::try_from(end).ok()?)
    }
}

impl Header {
    /// The header of a container for parts of so many bytes.
    ///
    /// # Errors
    /// [`NotAPayload`], if there can be no such container.
    pub fn new(kernel: u64, initrd: u64, command_line: u64) -> Result<Self, NotAPayload> {
        let mut end = PAGE;
        let mut place = |length: u64, name| {
            let outside = NotAPayload::Outside(name);
            let offset = end.checked_next_multiple_of(PAGE).ok_or(outside)?;
            end = offset.checked_add(length).ok_or(outside)?;
            Ok(Part { offset: offset.into(), length: length.into() })
        };
        let header = Self {
            magic: MAGIC,
            kernel: place(kernel, "kernel")?,
            initrd: place(initrd, "initrd")?,
            command_line: place(command_line, "command line")?,
            rest: [0; 4096 - 56],
        };
        header.checked(end)
    }

    /// Checks it against the size of the file that it is in, in bytes. Of one that passes, each
    /// part is inside the file, behind the header, and overlaps no other.
    ///
    /// # Errors
    /// [`NotAPayload`].
    pub fn checked(self, size: u64) -> Result<Self, NotAPayload> {
        if size < PAGE {
            return Err(NotAPayload::Short(size));
        }
        if self.magic != MAGIC {
            return Err(NotAPayload::Magic);
        }
        let mut before = PAGE;
        let parts =
            [("kernel", self.kernel), ("initrd", self.initrd), ("command line", self.command_line)];
        for (name, part) in parts {
            if !part.offset().is_multiple_of(PAGE) {
                return Err(NotAPayload::Unaligned(name));
            }
            if part.offset() < before {
                return Err(NotAPayload::Overlap(name));
            }
            before = match part.offset().checked_add(part.length()) {
                Some(end) if end <= size => end,
                _ => return Err(NotAPayload::Outside(name)),
            };
        }
        if self.kernel.length() == 0 {
            return Err(NotAPayload::NoKernel);
        }
        if self.command_line.length() > COMMAND_LINE_MAX {
            return Err(NotAPayload::CommandLine(self.command_line.length()));
        }
        Ok(self)
    }

    /// The kernel: a bzImage.
    pub const fn kernel(&self) -> Part {
        self.kernel
    }

    /// The initial file system: a cpio archive, packed or not. May be empty.
    pub const fn initrd(&self) -> Part {
        self.initrd
    }

    /// The command line, without a zero at its end. May be empty.
    pub const fn command_line(&self) -> Part {
        self.command_line
    }

    /// How many bytes the container has.
    pub const fn size(&self) -> u64 {
        self.command_line.offset() + self.command_line.length()
    }
}

/// What is in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'b> {
    /// A bzImage.
    pub kernel: &'b [u8],
    /// A cpio archive, packed or not. May be empty.
    pub initrd: &'b [u8],
    /// Without a zero at its end. May be empty.
    pub command_line: &'b [u8],
}

/// The parts of a container that is in memory as a whole. What follows the last one is ignored.
///
/// # Errors
/// [`NotAPayload`].
pub fn parse(bytes: &[u8]) -> Result<Payload<'_>, NotAPayload> {
    let size = bytes.len() as u64;
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| NotAPayload::Short(size))?;
    let header = header.clone().checked(size)?;
    let part = |part: Part, name| part.of(bytes).ok_or(NotAPayload::Outside(name));
    Ok(Payload {
        kernel: part(header.kernel, "kernel")?,
        initrd: part(header.initrd, "initrd")?,
        command_line: part(header.command_line, "command line")?,
    })
}
