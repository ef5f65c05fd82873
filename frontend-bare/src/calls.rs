//! What a guest asks of the monitor: by VMMCALL, at privilege level 0, which comes out before the
//! hypervisor sees it.
//!
//! RAX has the number of the call, RBX, RCX and RDX its operands; RAX has the answer afterwards,
//! and all other registers are as they were. Without the monitor the hypervisor answers: KVM with
//! -1000, which is no answer of these.

/// The guest is to be launched: RBX is the first page of its image, RCX how many pages that has,
/// RDX how many the guest has in all.
pub const LAUNCH: u64 = 0x5056_0001;
/// The page RBX is opened to the hypervisor: RCX is 1 to be read, 3 to be read and written; RDX is
/// 0 until it is closed, or 1 until the hypervisor first drops its mapping.
pub const SHARE: u64 = 0x5056_0002;
/// The page RBX is closed.
pub const UNSHARE: u64 = 0x5056_0003;
/// The launch record is written into the private page RBX.
pub const RECORD: u64 = 0x5056_0004;
/// The guest is done: its memory is scrubbed. There is no answer; to the hypervisor the virtual CPU
/// has shut down.
pub const END: u64 = 0x5056_0005;

/// Whether a number is the monitor's. Those that have no call yet are not the hypervisor's either.
pub const fn is_ours(number: u64) -> bool {
    number & !0xffff == 0x5056_0000
}

/// What a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Answer {
    /// It is done.
    Done = 0,
    /// There is no such call.
    NoSuchCall = 1,
    /// An operand means nothing.
    Operand = 2,
    /// The guest is not launched, or is already.
    Launch = 3,
    /// The page's state does not allow it.
    State = 4,
    /// There is no room for more: guests, open pages, or tables.
    NoRoom = 5,
    /// Only a kernel may call.
    Privilege = 6,
}
