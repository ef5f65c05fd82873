//! What the plain VMM and its guests agree on: places, ports, devices.
//!
//! Both sides compile this file, so it knows neither of them: no allocation, no I/O, no KVM.

/// Guest frames that the VMM fills before the guest runs.
pub mod gfn {
    /// The boot page: the words of [`super::boot`].
    pub const BOOT: u64 = 1;
    /// The root of the page tables; the rest of them follows it.
    pub const TABLES: u64 = 2;
    /// The lowest frame that an image may be linked at. A flat image is loaded and entered there.
    pub const IMAGE: u64 = 0x10;
}

/// The fewest pages that a guest can have.
pub const PAGES_MIN: u64 = 0x40;
/// The most pages that a guest can have: all below the device.
pub const PAGES_MAX: u64 = DEVICE >> 12;

/// Words of the boot page.
pub mod boot {
    /// [`MARK_WORD`].
    pub const MARK: u64 = 0;
    /// Pages of guest memory, from frame 0 on.
    pub const PAGES: u64 = 1;
    /// The first frame that nothing was loaded into, nor into any behind it.
    pub const IMAGE_END: u64 = 2;
    /// The words that the guest was given.
    pub const WORDS: u64 = 3;
    /// At most so many.
    pub const WORDS_MAX: usize = 8;
    /// What the first word is.
    pub const MARK_WORD: u64 = u64::from_le_bytes(*b"plainvmm");
}

/// Ports that mean something.
pub mod port {
    /// `out`, 1 byte: the guest is done; the byte is its exit code.
    pub const END: u16 = 0x5f0;
    /// `out`, 1 byte: for the console.
    pub const CONSOLE: u16 = 0x5f1;
    /// `out` and `in`, 1, 2 or 4 bytes: what goes out is kept, and [`super::answer`] comes in.
    pub const DOORBELL: u16 = 0x5f4;
    /// `out`, 4 bytes: the guest frame of a mailbox, which the VMM reads, and answers in.
    pub const MAILBOX: u16 = 0x5f8;
}

/// Where the device is: one page, all of which is the same register. Stores are kept, loads get
/// [`answer`] of what was kept.
pub const DEVICE: u64 = 0xd000_0000;

/// What doorbell and device answer, cut to the width that is asked for.
pub const fn answer(kept: u64) -> u64 {
    (kept ^ 0x5bd1_e995_9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// What a guest begins its mailbox with, for the VMM to answer.
pub const GREETING: [u64; 2] = words(b"guest says hello");
/// What the VMM then puts behind the greeting.
pub const REPLY: [u64; 2] = words(b"vmm says welcome");

const fn words(text: &[u8; 16]) -> [u64; 2] {
    let (words, _) = text.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

/// Calls to a monitor beneath the VMM, by `vmmcall`: the number in rax, arguments in rbx, rcx and
/// rdx; 0 in rax if it was carried out. Where there is no monitor, KVM answers that it knows none.
pub mod call {
    /// Protects the guest from now on. rbx: the first frame of what was loaded, rcx: how many
    /// there are, rdx: all pages of the guest. Pages that were not loaded start as zeroes.
    pub const LAUNCH: u64 = 0x5056_0001;
    /// Shares a page. rbx: its frame, rcx: one of [`super::rights`], rdx: 0, or 1 if it ends when
    /// the VMM unmaps the page.
    pub const SHARE: u64 = 0x5056_0002;
    /// Takes a shared page back. rbx: its frame.
    pub const UNSHARE: u64 = 0x5056_0003;
    /// Writes the record of the launch into a page of the guest's own. rbx: its frame.
    pub const RECORD: u64 = 0x5056_0004;
    /// The guest is done: its pages are scrubbed.
    pub const END: u64 = 0x5056_0005;
}

/// Rights on a shared page.
pub mod rights {
    /// The VMM may read.
    pub const READ: u64 = 1;
    /// The VMM may read and write.
    pub const READ_WRITE: u64 = 3;
}
