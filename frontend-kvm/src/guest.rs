//! The toy guest as its trusted process sees it: what it runs, how its memory starts, its secrets.

use std::fmt;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use view_core::{Gfn, OutOfRange, Page};
use zeroize::Zeroize;

use crate::abi::{self, Boot, gfn, mode, rights};
use crate::memory::{GuestMemory, MemoryError};

/// The payload, built by this crate's build script.
static ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// Why a guest can't be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The payload is not what this loader takes.
    #[error("the payload is not a static x86-64 program: {0}")]
    Payload(&'static str),
    /// The guest's memory is too small for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A place in the payload is no address.
    #[error("the payload's address {0}")]
    Address(#[from] OutOfRange),
}

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Counts, and nothing else.
    Spin,
    /// Counts, rewrites pages, keeps secrets, shares its mailbox.
    Counter,
    /// As `Counter`, but takes the mailbox back and shares it again, with secrets in between.
    Toggler,
    /// Rings doorbells that must be refused.
    Bad,
}

impl Mode {
    const fn word(self) -> u64 {
        match self {
            Self::Spin => mode::SPIN,
            Self::Counter => mode::COUNTER,
            Self::Toggler => mode::TOGGLER,
            Self::Bad => mode::BAD,
        }
    }
}

/// A guest's orders and the entropy that its secrets come from. Wiped on drop.
pub struct Program {
    /// The orders, free to change before the guest is booted. `pages` is filled in then.
    pub boot: Boot,
}

impl Program {
    /// The usual orders of a mode.
    pub fn new(what: Mode, entropy: &[u8; 32]) -> Self {
        let keeps = if matches!(what, Mode::Counter | Mode::Toggler) { 8 } else { 0 };
        let mut words = [0; 4];
        let (chunks, _) = entropy.as_chunks::<8>();
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_le_bytes(*chunk);
        }
        let boot = Boot {
            mode: what.word(),
            pages: 0,
            secret_pages: keeps,
            work_pages: keeps * 8,
            work_every: 1 << 10,
            mailbox_every: 1 << 8,
            toggle_every: 1 << 16,
            step_every: 0,
            steps_max: 0,
            share_perm: rights::READ,
            share_mask: 0,
            share_expiry: 0,
            entropy: words,
        };
        words.zeroize();
        Self { boot }
    }

    /// What secret page number `page` of this guest holds: the bytes to search for elsewhere.
    pub fn secret(&self, page: u64) -> Page {
        let mut bytes = Page::zeroed();
        let (chunks, _) = bytes.bytes_mut().as_chunks_mut::<8>();
        for (chunk, word) in chunks.iter_mut().zip(0..) {
            *chunk = abi::secret_word(&self.boot.entropy, page, word).to_le_bytes();
        }
        bytes
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.boot.entropy.zeroize();
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("mode", &self.boot.mode).finish_non_exhaustive()
    }
}

/// A frame of [`abi::gfn`], all of which are small.
pub fn place(number: u64) -> Gfn {
    Gfn::new(number).unwrap_or(Gfn::MAX)
}

/// Fills fresh memory: descriptors, page tables, payload, boot page. Returns the entry's address.
pub(crate) fn load(memory: &GuestMemory, program: &Program) -> Result<u64, BootError> {
    let segment = |high: u64| high << 32 | 0xffff;
    let table = [0, 0, 0, 0, 0, segment(0x00cf_f300), segment(0x00af_fb00)];
    for (word, descriptor) in (0..).zip(table) {
        memory.write_word(place(gfn::GDT), word, descriptor)?;
    }
    // Present, writable, and reachable from user mode; 2 MiB pages below the third level.
    let user = 0b111;
    memory.write_word(place(gfn::PAGE_TABLES), 0, (gfn::PAGE_TABLES + 1) << 12 | user)?;
    memory.write_word(place(gfn::PAGE_TABLES + 1), 0, (gfn::PAGE_TABLES + 2) << 12 | user)?;
    for number in 0..abi::WORDS {
        let entry = number << 21 | 1 << 7 | user;
        memory.write_word(place(gfn::PAGE_TABLES + 2), number, entry)?;
    }
    let entry = load_elf(memory, ELF)?;
    let mut words = Boot { pages: memory.pages() as u64, ..program.boot }.words();
    for (word, value) in (0..).zip(words) {
        memory.write_word(place(gfn::BOOT), word, value)?;
    }
    words.zeroize();
    Ok(entry)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BootError> {
    let field = at.checked_add(N).and_then(|end| bytes.get(at..end));
    field.and_then(|f| f.try_into().ok()).ok_or(BootError::Payload("it ends too early"))
}

fn word(bytes: &[u8], at: usize) -> Result<u64, BootError> {
    Ok(u64::from_le_bytes(field(bytes, at)?))
}

fn load_elf(memory: &GuestMemory, elf: &[u8]) -> Result<u64, BootError> {
    if field(elf, 0)? != *b"\x7fELF\x02\x01" || field(elf, 18)? != [62, 0] {
        return Err(BootError::Payload("its head is another's"));
    }
    let headers = word(elf, 32)? as usize;
    let count = u16::from_le_bytes(field(elf, 56)?);
    for number in 0..usize::from(count) {
        let at = headers.saturating_add(number * 56);
        if field(elf, at)? == 1_u32.to_le_bytes() {
            load_segment(memory, elf, at)?;
        }
    }
    word(elf, 24)
}

fn load_segment(memory: &GuestMemory, elf: &[u8], at: usize) -> Result<(), BootError> {
    let (offset, address) = (word(elf, at + 8)? as usize, word(elf, at + 24)?);
    let (bytes, in_memory) = (word(elf, at + 32)? as usize, word(elf, at + 40)?);
    let (first, end) = (address >> 12, address.saturating_add(in_memory));
    if first < gfn::PAYLOAD || end > gfn::COUNTER_A << 12 || address % 4096 != 0 {
        return Err(BootError::Payload("a segment is outside of the payload's place"));
    }
    let content = offset.checked_add(bytes).and_then(|end| elf.get(offset..end));
    let content = content.ok_or(BootError::Payload("a segment is not in the file"))?;
    Ok(memory.write_bytes(Gfn::new(first)?, content)?)
}

/// Long mode, ring 3, paging on: where this host's KVM runs a guest on the processor itself, and
/// any other KVM runs it as well. `tr` keeps its reset value, which lets ring 3 use every port.
pub(crate) fn enter_long_mode(sregs: &mut kvm_sregs) {
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x33,
        type_: 11,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let stack = kvm_segment { selector: 0x2b, type_: 3, db: 1, l: 0, ..code };
    (sregs.cs, sregs.ss) = (code, stack);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs) = (stack, stack, stack, stack);
    sregs.gdt.base = gfn::GDT << 12;
    sregs.gdt.limit = 7 * 8 - 1;
    sregs.idt.limit = 0;
    sregs.cr3 = gfn::PAGE_TABLES << 12;
    sregs.cr0 = 0x8005_0033;
    sregs.cr4 = 0x620;
    sregs.efer = 0x500;
}

/// The registers at the entry: interrupts off, ports allowed by level as well.
pub(crate) fn entry_registers(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsp: gfn::STACK_END << 12, rflags: 0x3002, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_none_is_refused() {
        let memory = GuestMemory::new(abi::PAGES_MIN as usize).unwrap();
        assert_eq!(load_elf(&memory, &ELF[..40]), Err(BootError::Payload("it ends too early")));
        let mut other = ELF.to_vec();
        other[0] = 0;
        assert_eq!(load_elf(&memory, &other), Err(BootError::Payload("its head is another's")));
        let mut low = ELF.to_vec();
        low[64 + 24..64 + 32].copy_from_slice(&0_u64.to_le_bytes());
        assert!(matches!(load_elf(&memory, &low), Err(BootError::Payload(_))));
    }

    #[test]
    fn secrets_differ_by_entropy_page_and_word() {
        let one = Program::new(Mode::Counter, &[1; 32]);
        let two = Program::new(Mode::Counter, &[2; 32]);
        assert!(one.secret(0).bytes() != two.secret(0).bytes());
        assert!(one.secret(0).bytes() != one.secret(1).bytes());
        assert!(one.secret(0).bytes()[..8] != one.secret(0).bytes()[8..16]);
    }

    #[test]
    fn orders_survive_the_boot_page() {
        let boot = Boot { share_mask: 9, ..Program::new(Mode::Toggler, &[7; 32]).boot };
        assert_eq!(Boot::from_words(&boot.words()).words(), boot.words());
    }
}
