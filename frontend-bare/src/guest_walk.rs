//! From a guest's addresses to its memory, through its own tables.
//!
//! Tables and code are the guest's, and may be anything: each step is one read, there are at most
//! five for an address, and none leads anywhere but to the guest's own physical addresses.

use crate::vmcb::{Fetched, Segment, StateSaveArea, cr0, cr4, efer};

/// How a guest's addresses are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paging {
    /// They are physical ones, of 32 bits.
    Off,
    /// Tables of this many levels (the manual, 5.3).
    Long(u32),
}

/// What guests are told of physical addresses, and reads them.
#[derive(Debug)]
pub struct GuestMemory<R> {
    /// How many bits a physical address has, up to 52 (CPUID function 8000_0008h).
    pub address_bits: u32,
    /// Reads the eight bytes at a physical address of the guest, a multiple of eight; `None` where
    /// it has no memory.
    pub read: R,
}

impl<R: FnMut(u64) -> Option<u64>> GuestMemory<R> {
    /// Where in the guest's memory a linear address is. `None` if its tables do not say, if they
    /// say what the CPU does not take, or if they are of a kind that 64-bit guests have not.
    ///
    /// Rights are not checked: the CPU did, on its way to the same place.
    pub fn physical(&mut self, save: &StateSaveArea, linear: u64) -> Option<u64> {
        match paging(save)? {
            Paging::Off => Some(linear & u64::from(u32::MAX)),
            Paging::Long(levels) => self.walk(save, levels, linear),
        }
    }

    fn walk(&mut self, save: &StateSaveArea, levels: u32, linear: u64) -> Option<u64> {
        let bits = PAGE_BITS + levels * INDEX_BITS;
        let sign = u64::BITS - bits;
        if ((linear << sign) as i64 >> sign) as u64 != linear {
            return None;
        }
        let mut table = save.cr3 & FRAME;
        for level in (0..levels).rev() {
            let shift = PAGE_BITS + level * INDEX_BITS;
            let index = linear >> shift & ((1 << INDEX_BITS) - 1);
            let entry = (self.read)(table | index << 3)?;
            let is_page = level == 0 || entry & LARGE != 0;
            if !self.is_valid(entry, level, save.efer & efer::NXE != 0) {
                return None;
            }
            if is_page {
                let offset = (1 << shift) - 1;
                return Some(entry & FRAME & !offset | linear & offset);
            }
            table = entry & FRAME;
        }
        None
    }

    /// Whether the CPU takes this entry (the manual, 5.3.3 to 5.3.5).
    fn is_valid(&self, entry: u64, level: u32, may_forbid_execution: bool) -> bool {
        let beyond = FRAME & u64::MAX.checked_shl(self.address_bits).unwrap_or(0);
        let no_execute = if may_forbid_execution { 0 } else { NO_EXECUTE };
        let of_large = match level {
            0 => 0,
            1 | 2 if entry & LARGE != 0 => {
                // Between the kind of memory, bit 12, and the frame.
                (1 << (PAGE_BITS + level * INDEX_BITS)) - (1 << (PAGE_BITS + 1))
            }
            1 | 2 => 0,
            _ => LARGE,
        };
        entry & PRESENT != 0 && entry & (beyond | no_execute | of_large) == 0
    }

    /// The bytes where the CPU stopped: as many as an instruction may have, or fewer if the guest
    /// has no more there.
    pub fn fetch(&mut self, save: &StateSaveArea) -> Fetched {
        let mut bytes = [0; Fetched::MAX];
        let mut count = 0;
        let (mut page, mut word) = (None, None);
        for byte in &mut bytes {
            let linear = code_address(save, count as u64);
            let at = remembered(&mut page, linear & !OFFSET, |page| self.physical(save, page));
            let Some(at) = at else { break };
            let physical = at | linear & OFFSET;
            let Some(read) = remembered(&mut word, physical & !7, &mut self.read) else { break };
            *byte = (read >> (physical % 8 * 8)) as u8;
            count += 1;
        }
        Fetched::new(bytes.get(..count).unwrap_or_default())
    }
}

/// What was asked for last, if it is asked for again.
fn remembered(
    last: &mut Option<(u64, u64)>,
    wanted: u64,
    ask: impl FnOnce(u64) -> Option<u64>,
) -> Option<u64> {
    if last.is_none_or(|(known, _)| known != wanted) {
        *last = ask(wanted).map(|found| (wanted, found));
    }
    last.map(|(_, found)| found)
}

const fn paging(save: &StateSaveArea) -> Option<Paging> {
    if save.cr0 & cr0::PG == 0 {
        return Some(Paging::Off);
    }
    if save.efer & efer::LMA == 0 {
        return None;
    }
    Some(Paging::Long(if save.cr4 & cr4::LA57 != 0 { 5 } else { 4 }))
}

/// The linear address of a byte of code: in 64-bit mode segments begin at zero (the manual, 4.8.1),
/// otherwise addresses have 32 bits.
fn code_address(save: &StateSaveArea, offset: u64) -> u64 {
    let ip = save.rip.wrapping_add(offset);
    if is_in_64_bit_mode(save) {
        ip
    } else {
        save.cs.base.wrapping_add(ip & u64::from(u32::MAX)) & u64::from(u32::MAX)
    }
}

/// Whether code is 64-bit code.
pub(crate) const fn is_in_64_bit_mode(save: &StateSaveArea) -> bool {
    save.efer & efer::LMA != 0 && save.cs.attributes & Segment::LONG != 0
}

const PAGE_BITS: u32 = 12;
const INDEX_BITS: u32 = 9;
const OFFSET: u64 = (1 << PAGE_BITS) - 1;

/// Bits of an entry (the manual, 5.4.1).
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 63;
