//! A door for debuggers: what KVM and this VMM's own mapping show of a guest, as raw bytes.
//!
//! A record of registers is `KVM_GET_REGS`, `KVM_GET_SREGS` and `KVM_GET_XSAVE`, one behind the
//! other as the kernel gives them ([`RECORD`] bytes). A dump of memory is its pages in order.

use std::io::{self, Write};

use kvm_bindings::{kvm_regs, kvm_sregs, kvm_xsave};
use view_core::{Gfn, Page};
use zerocopy::IntoBytes;

use super::PlainVm;
use crate::sys::SysError;

/// Bytes of the general registers in a record.
pub const GENERAL: usize = size_of::<kvm_regs>();
/// Bytes of segments, tables and control registers, behind those.
pub const CONTROL: usize = size_of::<kvm_sregs>();
/// Bytes of what XSAVE keeps, behind those: x87, XMM from byte 160, upper halves of YMM from 576.
pub const EXTENDED: usize = size_of::<kvm_xsave>();
/// Bytes of a record.
pub const RECORD: usize = GENERAL + CONTROL + EXTENDED;

/// Writes a record of the registers.
///
/// # Errors
/// KVM refused, or whoever is written to.
pub fn registers(vm: &PlainVm, to: &mut impl Write) -> io::Result<()> {
    let refused = |call| move |e| io::Error::other(SysError::kvm(call, e));
    let fd = &vm.vcpu.fd;
    let regs = fd.get_regs().map_err(refused("KVM_GET_REGS"))?;
    let sregs = fd.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
    let xsave = fd.get_xsave().map_err(refused("KVM_GET_XSAVE"))?;
    to.write_all(regs.as_bytes())?;
    to.write_all(sregs.as_bytes())?;
    to.write_all(xsave.as_bytes())
}

/// Writes all of the guest's memory, as this VMM's mapping shows it.
///
/// # Errors
/// Whoever is written to refused.
pub fn memory(vm: &PlainVm, to: &mut impl Write) -> io::Result<()> {
    (0..vm.memory.pages())
        .filter_map(|index| vm.memory.gfn_of(index))
        .try_for_each(|gfn| page(vm, gfn, to))
}

/// Writes one page of it.
///
/// # Errors
/// There is no such page, or whoever is written to refused.
pub fn page(vm: &PlainVm, gfn: Gfn, to: &mut impl Write) -> io::Result<()> {
    let mut page = Page::zeroed();
    vm.memory.read_page(gfn, &mut page).map_err(io::Error::other)?;
    to.write_all(page.bytes())
}
