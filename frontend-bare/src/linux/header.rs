//! What a kernel's file says of itself.

use core::fmt;
use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where it is in the kernel's file, and in the zero page, too.
pub(super) const OFFSET: usize = 0x1f1;

/// Where it ends in the zero page at the latest.
const END: usize = 0x290;

/// The setup header (the protocol, "The Real-Mode Kernel Header"), with room for what later
/// versions of the protocol add.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Fields {
    pub(super) setup_sectors: u8,
    root_flags: U16,
    pub(super) paragraphs: U32,
    ram_size: U16,
    video_mode: U16,
    root_device: U16,
    boot_flag: U16,
    jump: u8,
    /// How far the jump goes: over the rest of the header.
    jump_over: u8,
    magic: U32,
    version: U16,
    real_mode_switch: U32,
    start_segment: U16,
    kernel_version: U16,
    pub(super) loader: u8,
    load_flags: u8,
    setup_move_size: U16,
    pub(super) code_32_start: U32,
    pub(super) ramdisk: U32,
    pub(super) ramdisk_size: U32,
    boot_sector: U32,
    heap_end: U16,
    pub(super) loader_version: u8,
    pub(super) loader_extended: u8,
    pub(super) command_line: U32,
    pub(super) initrd_last: U32,
    pub(super) alignment: U32,
    pub(super) relocatable: u8,
    least_alignment: u8,
    extended_load_flags: U16,
    pub(super) command_line_max: U32,
    subarchitecture: U32,
    subarchitecture_data: U64,
    payload_offset: U32,
    payload_length: U32,
    pub(super) setup_data: U64,
    pub(super) preferred: U64,
    pub(super) init_size: U32,
    handover: U32,
    /// From version 2.15 on, and what is yet to come.
    later: [u8; END - 0x268],
}

/// Asserts at compile time where fields are, by their offsets in the file.
macro_rules! at {
    ($($offset:literal $field:ident)*) => {
        $(const _: () = assert!(OFFSET + offset_of!(Fields, $field) == $offset);)*
    };
}

at! {
    0x1f4 paragraphs 0x1fe boot_flag 0x201 jump_over 0x202 magic 0x206 version 0x210 loader
    0x211 load_flags 0x214 code_32_start 0x218 ramdisk 0x21c ramdisk_size 0x226 loader_version
    0x227 loader_extended 0x228 command_line 0x22c initrd_last 0x230 alignment 0x234 relocatable
    0x236 extended_load_flags 0x238 command_line_max 0x250 setup_data 0x258 preferred
    0x260 init_size 0x268 later
}
const _: () = assert!(OFFSET + size_of::<Fields>() == END);

/// What a kernel says of itself, checked. Only [`Header::of`] makes one.
#[derive(Clone, Copy)]
pub struct Header(pub(super) Fields);

/// Why a file is no kernel that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLinux {
    /// It ends within its header.
    Short,
    /// It has not the marks of a kernel of x86.
    Magic,
    /// Its protocol is older than 2.12, which brought [`NotLinux::Not64Bit`]'s flag.
    Version(u16),
    /// It is to be loaded below 1 MiB, as before 1995.
    Low,
    /// It has no 64-bit entry.
    Not64Bit,
    /// Its alignment is no power of two.
    Alignment(u32),
    /// Its header says that it ends past the place that there is for it.
    HeaderEnd(u8),
}

const BOOT_FLAG: u16 = 0xaa55;
const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const LOADED_HIGH: u8 = 1;
const KERNEL_64: u16 = 1;
const SECTOR: u64 = 512;

impl Header {
    /// How many bytes of the file [`Header::of`] wants.
    pub const FILE_BYTES: usize = END;

    /// Reads and checks the header in the first bytes of a kernel's file (bzImage).
    ///
    /// # Errors
    /// [`NotLinux`].
    pub fn of(file: &[u8]) -> Result<Self, NotLinux> {
        let bytes = file.get(OFFSET..END).ok_or(NotLinux::Short)?;
        let fields = Fields::read_from_bytes(bytes).map_err(|_| NotLinux::Short)?;
        if fields.boot_flag != BOOT_FLAG || fields.magic != MAGIC {
            return Err(NotLinux::Magic);
        }
        if fields.version < 0x20c {
            return Err(NotLinux::Version(fields.version.get()));
        }
        if fields.load_flags & LOADED_HIGH == 0 {
            return Err(NotLinux::Low);
        }
        if fields.extended_load_flags.get() & KERNEL_64 == 0 {
            return Err(NotLinux::Not64Bit);
        }
        if !fields.alignment.get().is_power_of_two() {
            return Err(NotLinux::Alignment(fields.alignment.get()));
        }
        let end = offset_of!(Fields, magic) + usize::from(fields.jump_over);
        if end < offset_of!(Fields, later) || end > size_of::<Fields>() {
            return Err(NotLinux::HeaderEnd(fields.jump_over));
        }
        Ok(Self(fields))
    }

    /// The protocol's version; 20Ch is 2.12.
    pub fn version(&self) -> u16 {
        self.0.version.get()
    }

    /// How many bytes of the file are for other ways to boot: what runs begins behind them.
    pub fn setup_size(&self) -> u64 {
        // Zero stands for four.
        let sectors = if self.0.setup_sectors == 0 { 4 } else { self.0.setup_sectors };
        (u64::from(sectors) + 1) * SECTOR
    }

    /// The fewest bytes that the whole file has; it may be padded to 16 or not.
    pub fn file_size_min(&self) -> u64 {
        self.setup_size() + (u64::from(self.0.paragraphs.get()) * 16).saturating_sub(15)
    }

    /// How many bytes the kernel wants for itself from where it is loaded on, before it knows of
    /// any memory.
    pub fn init_size(&self) -> u64 {
        u64::from(self.0.init_size.get())
    }

    /// Where the kernel would best be.
    pub fn preferred(&self) -> u64 {
        self.0.preferred.get()
    }

    /// Of what its address is to be a multiple; a power of two.
    pub fn alignment(&self) -> u64 {
        u64::from(self.0.alignment.get())
    }

    /// Whether it may be anywhere else than where it would best be.
    pub fn is_relocatable(&self) -> bool {
        self.0.relocatable != 0
    }

    /// The first address that no initial RAM disk may have.
    pub fn initrd_end_max(&self) -> u64 {
        u64::from(self.0.initrd_last.get()) + 1
    }

    /// How many bytes the command line has at most, without the zero at its end.
    pub fn command_line_max(&self) -> u64 {
        u64::from(self.0.command_line_max.get())
    }

    /// The fields that the kernel said were its header, and zeroes for the rest of the place: what
    /// is in the file there is code.
    pub(super) fn for_zero_page(&self) -> Fields {
        let mut fields = self.0;
        let end = offset_of!(Fields, magic) + usize::from(fields.jump_over);
        fields.as_mut_bytes().iter_mut().skip(end).for_each(|byte| *byte = 0);
        fields
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header(protocol {:#x})", self.version())
    }
}
