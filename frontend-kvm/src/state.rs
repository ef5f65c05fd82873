//! The whole state of a vCPU, as KVM gives and takes it, and its bytes.
//!
//! The bytes are not sealed here and hold the guest's registers: they belong to the trusted
//! process until somebody seals them. What is read back may come from anyone, so every length,
//! order and index is checked before KVM sees it; values are the guest's own affair.

use std::fmt;

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use zerocopy::{FromBytes, Immutable, IntoBytes};
use zeroize::{Zeroize, Zeroizing};

use crate::sys::{SysError, WindowedVm};

/// The registers that are saved by number, in the order of their numbers. KVM's answer to one of
/// them may be that it has none; everything else that a vCPU has travels in a structure.
const MSRS: [u32; 15] = [
    0x10,        // time stamp counter
    0x174,       // sysenter cs
    0x175,       // sysenter esp
    0x176,       // sysenter eip
    0x1a0,       // misc enable
    0x277,       // page attribute table
    0x2ff,       // default memory type
    0xc000_0081, // star
    0xc000_0082, // lstar
    0xc000_0083, // cstar
    0xc000_0084, // syscall mask
    0xc000_0100, // fs base
    0xc000_0101, // gs base
    0xc000_0102, // kernel gs base
    0xc000_0103, // time stamp auxiliary
];

const MAGIC: [u8; 6] = *b"pvvcpu";
const VERSION: u16 = 1;
const HEAD: usize = 8;

/// Why bytes are not the state of a vCPU, or a vCPU would not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// They end too early.
    #[error("the state ends too early, in section {0}")]
    Short(u16),
    /// They don't start as a state does.
    #[error("not the state of a vCPU")]
    Magic,
    /// Another version wrote them.
    #[error("state version {0} is not known")]
    Version(u16),
    /// A section is missing, repeated or out of order.
    #[error("section {found} where {wanted} must be")]
    Order {
        /// What was there.
        found: u16,
        /// What must be there.
        wanted: u16,
    },
    /// A section has another length than its structure.
    #[error("section {section} can't have {bytes} bytes")]
    Length {
        /// Which.
        section: u16,
        /// The length it claims.
        bytes: u32,
    },
    /// A numbered register that is not saved, or is repeated or out of order.
    #[error("register {0:#x} has no place in a state")]
    Register(u32),
    /// Bytes behind the end.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// KVM refused.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// Everything that a paused vCPU is. Neither prints nor compares; wiped on drop.
pub struct VcpuState {
    parts: Box<Parts>,
    msrs: Vec<kvm_msr_entry>,
}

#[derive(Default)]
struct Parts {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xcrs: kvm_xcrs,
    xsave: kvm_xsave,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    run: kvm_mp_state,
}

impl fmt::Debug for VcpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VcpuState(..)")
    }
}

impl Drop for VcpuState {
    fn drop(&mut self) {
        for section in self.parts.sections_mut() {
            section.zeroize();
        }
        self.msrs.as_mut_slice().as_mut_bytes().zeroize();
    }
}

impl Parts {
    const SECTIONS: u16 = 7;

    /// In the order in which they are written; the numbered registers come last.
    fn sections(&self) -> [&[u8]; Self::SECTIONS as usize] {
        [
            self.regs.as_bytes(),
            self.sregs.as_bytes(),
            self.xcrs.as_bytes(),
            self.xsave.region.as_bytes(),
            self.debug.as_bytes(),
            self.events.as_bytes(),
            self.run.as_bytes(),
        ]
    }

    fn sections_mut(&mut self) -> [&mut [u8]; Self::SECTIONS as usize] {
        [
            self.regs.as_mut_bytes(),
            self.sregs.as_mut_bytes(),
            self.xcrs.as_mut_bytes(),
            self.xsave.region.as_mut_bytes(),
            self.debug.as_mut_bytes(),
            self.events.as_mut_bytes(),
            self.run.as_mut_bytes(),
        ]
    }
}

impl VcpuState {
    /// More bytes than any state has.
    pub const BYTES_MAX: usize = 8192;

    /// The bytes: magic, version, then sections of number, length and content.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Enough from the start: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(Self::BYTES_MAX));
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let msrs = self.msrs.as_slice().as_bytes();
        for (section, number) in self.parts.sections().into_iter().chain([msrs]).zip(0_u16..) {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&(section.len() as u32).to_le_bytes());
            bytes.extend_from_slice(section);
        }
        bytes
    }

    /// The state that these bytes are.
    ///
    /// # Errors
    /// Anything that [`VcpuState::to_bytes`] would not have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let (head, mut rest) = bytes.split_first_chunk::<HEAD>().ok_or(StateError::Magic)?;
        let [magic @ .., low, high] = *head;
        if magic != MAGIC {
            return Err(StateError::Magic);
        }
        match u16::from_le_bytes([low, high]) {
            VERSION => {}
            other => return Err(StateError::Version(other)),
        }
        let mut this = Self { parts: Box::default(), msrs: Vec::with_capacity(MSRS.len()) };
        for (section, number) in this.parts.sections_mut().into_iter().zip(0..) {
            let content = take(&mut rest, number)?;
            if content.len() != section.len() {
                let bytes = content.len() as u32;
                return Err(StateError::Length { section: number, bytes });
            }
            section.copy_from_slice(content);
        }
        this.take_msrs(take(&mut rest, Parts::SECTIONS)?)?;
        if rest.is_empty() { Ok(this) } else { Err(StateError::Trailing(rest.len())) }
    }

    fn take_msrs(&mut self, content: &[u8]) -> Result<(), StateError> {
        let (entries, odd) = content.as_chunks::<{ size_of::<kvm_msr_entry>() }>();
        if !odd.is_empty() {
            let bytes = content.len() as u32;
            return Err(StateError::Length { section: Parts::SECTIONS, bytes });
        }
        let mut known = MSRS.iter();
        for entry in entries {
            let entry = zerocopy::transmute!(*entry);
            let kvm_msr_entry { index, reserved, .. } = entry;
            if reserved != 0 || !known.any(|&number| number == index) {
                return Err(StateError::Register(index));
            }
            self.msrs.push(entry);
        }
        Ok(())
    }

    /// What the vCPU is now. It must not run meanwhile.
    pub(crate) fn save(vcpu: &VcpuFd) -> Result<Self, StateError> {
        let mut this = Self { parts: Box::default(), msrs: Vec::with_capacity(MSRS.len()) };
        let parts = &mut *this.parts;
        parts.regs = vcpu.get_regs().map_err(|e| SysError::kvm("KVM_GET_REGS", e))?;
        parts.sregs = vcpu.get_sregs().map_err(|e| SysError::kvm("KVM_GET_SREGS", e))?;
        parts.xcrs = vcpu.get_xcrs().map_err(|e| SysError::kvm("KVM_GET_XCRS", e))?;
        parts.xsave = vcpu.get_xsave().map_err(|e| SysError::kvm("KVM_GET_XSAVE", e))?;
        parts.debug = vcpu.get_debug_regs().map_err(|e| SysError::kvm("KVM_GET_DEBUGREGS", e))?;
        parts.events =
            vcpu.get_vcpu_events().map_err(|e| SysError::kvm("KVM_GET_VCPU_EVENTS", e))?;
        parts.run = vcpu.get_mp_state().map_err(|e| SysError::kvm("KVM_GET_MP_STATE", e))?;
        for index in MSRS {
            let mut one = msrs(&[kvm_msr_entry { index, ..Default::default() }])?;
            // One at a time: KVM stops at the first that it has none of.
            if let Ok(1) = vcpu.get_msrs(&mut one) {
                this.msrs.extend_from_slice(one.as_slice());
            }
            one.as_mut_slice().as_mut_bytes().zeroize();
        }
        Ok(this)
    }

    /// Makes the vCPU this. It must not run meanwhile.
    pub(crate) fn load(&self, vm: &WindowedVm, vcpu: &VcpuFd) -> Result<(), StateError> {
        let parts = &*self.parts;
        vcpu.set_sregs(&parts.sregs).map_err(|e| SysError::kvm("KVM_SET_SREGS", e))?;
        vcpu.set_regs(&parts.regs).map_err(|e| SysError::kvm("KVM_SET_REGS", e))?;
        vcpu.set_xcrs(&parts.xcrs).map_err(|e| SysError::kvm("KVM_SET_XCRS", e))?;
        vm.load_xsave(vcpu, &with_sse(&parts.xsave))?;
        vcpu.set_debug_regs(&parts.debug).map_err(|e| SysError::kvm("KVM_SET_DEBUGREGS", e))?;
        let mut numbered = msrs(&self.msrs)?;
        let taken = vcpu.set_msrs(&numbered);
        numbered.as_mut_slice().as_mut_bytes().zeroize();
        let taken = taken.map_err(|e| SysError::kvm("KVM_SET_MSRS", e))?;
        if let Some(refused) = self.msrs.get(taken) {
            return Err(StateError::Register(refused.index));
        }
        vcpu.set_vcpu_events(&parts.events).map_err(|e| SysError::kvm("KVM_SET_VCPU_EVENTS", e))?;
        vcpu.set_mp_state(parts.run).map_err(|e| SysError::kvm("KVM_SET_MP_STATE", e))?;
        Ok(())
    }
}

/// The same vector state, with the x87 and SSE parts marked as present. Without the marks the
/// processor would take them for their initial values and lose what the registers hold.
fn with_sse(state: &kvm_xsave) -> Zeroizing<XsaveCopy> {
    const XSTATE_BV: usize = 512 / 4;
    let mut copy = Zeroizing::new(XsaveCopy(kvm_xsave::default()));
    copy.0.region = state.region;
    copy.0.region[XSTATE_BV] |= 3;
    copy
}

/// A copy of vector state that can be wiped.
struct XsaveCopy(kvm_xsave);

impl Zeroize for XsaveCopy {
    fn zeroize(&mut self) {
        self.0.region.zeroize();
    }
}

impl std::ops::Deref for XsaveCopy {
    type Target = kvm_xsave;

    fn deref(&self) -> &kvm_xsave {
        &self.0
    }
}

fn msrs(entries: &[kvm_msr_entry]) -> Result<Msrs, SysError> {
    Msrs::from_entries(entries).map_err(|_| SysError::new("KVM_GET_MSRS", libc::E2BIG))
}

/// The content of the next section, which must be `wanted`.
fn take<'b>(rest: &mut &'b [u8], wanted: u16) -> Result<&'b [u8], StateError> {
    let short = StateError::Short(wanted);
    let ([a, b, length @ ..], after) = rest.split_first_chunk::<6>().ok_or(short)?;
    let (found, bytes) = (u16::from_le_bytes([*a, *b]), u32::from_le_bytes(*length));
    if found != wanted {
        return Err(StateError::Order { found, wanted });
    }
    let bytes = usize::try_from(bytes).map_err(|_| short)?;
    let (content, after) = after.split_at_checked(bytes).ok_or(short)?;
    *rest = after;
    Ok(content)
}

const fn plain<T: FromBytes + IntoBytes + Immutable>() {}
const _: () = plain::<kvm_msr_entry>();

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> VcpuState {
        let mut parts = Box::<Parts>::default();
        parts.regs.rax = 0x1234;
        parts.xsave.region[1000] = 77;
        let msrs =
            [0x10, 0x277].map(|index| kvm_msr_entry { index, data: 9, ..Default::default() });
        VcpuState { parts, msrs: msrs.to_vec() }
    }

    fn refused(bytes: &[u8]) -> StateError {
        VcpuState::from_bytes(bytes).map(|_| ()).unwrap_err()
    }

    #[test]
    fn bytes_make_the_same_state_again() {
        let bytes = sample().to_bytes();
        assert!(bytes.len() <= VcpuState::BYTES_MAX);
        let again = VcpuState::from_bytes(&bytes).unwrap();
        assert_eq!(again.parts.regs.rax, 0x1234);
        assert_eq!(again.parts.xsave.region[1000], 77);
        assert_eq!(*again.to_bytes(), *bytes);
    }

    #[test]
    fn every_prefix_and_every_suffix_is_refused() {
        let bytes = sample().to_bytes();
        for end in 0..bytes.len() {
            refused(&bytes[..end]);
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(refused(&longer), StateError::Trailing(1));
    }

    #[test]
    fn a_changed_frame_is_refused() {
        let good = sample().to_bytes();
        let change = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            refused(&bytes)
        };
        assert_eq!(change(0, b'x'), StateError::Magic);
        assert_eq!(change(6, 2), StateError::Version(2));
        assert_eq!(change(8, 3), StateError::Order { found: 3, wanted: 0 });
        assert_eq!(change(10, 1), StateError::Length { section: 0, bytes: 1 });
        assert_eq!(change(13, 0xff), StateError::Short(0));
        let msrs = good.len() - 32;
        assert_eq!(change(msrs, 0x11), StateError::Register(0x11));
        assert_eq!(change(msrs + 4, 1), StateError::Register(0x10)); // reserved
        let mut twice = good.to_vec();
        twice.copy_within(msrs..msrs + 16, msrs + 16);
        assert_eq!(refused(&twice), StateError::Register(0x10));
    }
}
