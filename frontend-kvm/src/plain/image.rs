//! How the memory and the vCPU of a plain VM's guest begin.

use kvm_bindings::{kvm_segment, kvm_sregs};
use view_core::Gfn;

use super::abi::{DEVICE, boot, gfn};
use super::{Guest, PlainError};
use crate::memory::GuestMemory;

/// The first GiB that no table is for: tables map what is below 4 GiB, the device as well.
const GIBS: u64 = 4;
const _: () = assert!(DEVICE < GIBS << 30);
const _: () = assert!(gfn::TABLES + 2 + GIBS <= gfn::IMAGE);

/// Fills fresh memory: page tables, image, boot page. Returns the entry's address.
pub(super) fn load(memory: &GuestMemory, guest: &Guest<'_>) -> Result<u64, PlainError> {
    if guest.words.len() > boot::WORDS_MAX {
        return Err(PlainError::Words(guest.words.len()));
    }
    tables(memory)?;
    let (entry, end) = if guest.image.starts_with(b"\x7fELF") {
        elf(memory, guest.image)?
    } else {
        memory.write_bytes(Gfn::new(gfn::IMAGE)?, guest.image)?;
        (gfn::IMAGE << 12, gfn::IMAGE + guest.image.len().div_ceil(4096) as u64)
    };
    let page = Gfn::new(gfn::BOOT)?;
    memory.write_word(page, boot::MARK, boot::MARK_WORD)?;
    memory.write_word(page, boot::PAGES, guest.pages)?;
    memory.write_word(page, boot::IMAGE_END, end)?;
    for (at, word) in (boot::WORDS..).zip(guest.words) {
        memory.write_word(page, at, *word)?;
    }
    Ok(entry)
}

/// Maps what is below 4 GiB to itself, by pages of 2 MiB.
fn tables(memory: &GuestMemory) -> Result<(), PlainError> {
    let leads = 0b11; // present and writable
    let table = |number| gfn::TABLES + number;
    memory.write_word(Gfn::new(table(0))?, 0, table(1) << 12 | leads)?;
    for gib in 0..GIBS {
        memory.write_word(Gfn::new(table(1))?, gib, table(2 + gib) << 12 | leads)?;
        let directory = Gfn::new(table(2 + gib))?;
        for page in 0..512 {
            memory.write_word(directory, page, gib << 30 | page << 21 | 1 << 7 | leads)?;
        }
    }
    Ok(())
}

const SHORT: PlainError = PlainError::Image("it ends too early");

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], PlainError> {
    let field = at.checked_add(N).and_then(|end| bytes.get(at..end));
    field.and_then(|f| f.try_into().ok()).ok_or(SHORT)
}

fn word(bytes: &[u8], at: usize) -> Result<u64, PlainError> {
    Ok(u64::from_le_bytes(field(bytes, at)?))
}

/// Loads a file's segments. Returns the entry, and the first frame behind all of them.
fn elf(memory: &GuestMemory, elf: &[u8]) -> Result<(u64, u64), PlainError> {
    if field(elf, 0)? != *b"\x7fELF\x02\x01" || field(elf, 16)? != [2, 0, 62, 0] {
        return Err(PlainError::Image("it is not a static program for x86-64"));
    }
    let headers = word(elf, 32)? as usize;
    let mut end = gfn::IMAGE;
    for number in 0..usize::from(u16::from_le_bytes(field(elf, 56)?)) {
        let at = headers.saturating_add(number * 56);
        if field(elf, at)? == 1_u32.to_le_bytes() {
            end = end.max(segment(memory, elf, at)?);
        }
    }
    Ok((word(elf, 24)?, end))
}

/// Loads a segment. Returns the first frame behind it.
fn segment(memory: &GuestMemory, elf: &[u8], at: usize) -> Result<u64, PlainError> {
    let (offset, address) = (word(elf, at + 8)? as usize, word(elf, at + 24)?);
    let (bytes, in_memory) = (word(elf, at + 32)? as usize, word(elf, at + 40)?);
    let end = address.saturating_add(in_memory).div_ceil(4096);
    if address % 4096 != 0 || address >> 12 < gfn::IMAGE || in_memory < bytes as u64 {
        return Err(PlainError::Image("a segment is where none can be"));
    }
    if end > memory.pages() as u64 {
        return Err(PlainError::Image("a segment is behind the end of memory"));
    }
    let content = offset.checked_add(bytes).and_then(|end| elf.get(offset..end)).ok_or(SHORT)?;
    memory.write_bytes(Gfn::new(address >> 12)?, content)?;
    Ok(end)
}

/// Long mode, ring 0, paging on. The guest has no descriptors and no stack until it makes some.
pub(super) fn enter_long_mode(sregs: &mut kvm_sregs) {
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x8,
        type_: 11,
        present: 1,
        dpl: 0,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment { selector: 0x10, type_: 3, db: 1, l: 0, ..code };
    (sregs.cs, sregs.ss) = (code, data);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs) = (data, data, data, data);
    (sregs.gdt.limit, sregs.idt.limit) = (0, 0);
    sregs.cr3 = gfn::TABLES << 12;
    sregs.cr0 = 0x8005_0033;
    sregs.cr4 = 0x620;
    sregs.efer = 0x500;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one segment: so many bytes at this address, and more of zeroes.
    fn file(address: u64, bytes: u64, in_memory: u64) -> Vec<u8> {
        let mut file = vec![0; 128];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        let words = [(24, 0x1_0004), (32, 64), (72, 128), (88, address), (96, bytes)];
        for (at, word) in words.into_iter().chain([(104, in_memory)]) {
            file[at..at + 8].copy_from_slice(&u64::to_le_bytes(word));
        }
        (file[56], file[64]) = (1, 1);
        file.resize(128 + bytes as usize, 0xcc);
        file
    }

    fn loaded(image: &[u8]) -> Result<(u64, u64), PlainError> {
        let memory = GuestMemory::new(0x40).unwrap();
        let entry = load(&memory, &Guest { image, pages: 0x40, words: &[7, 8] })?;
        let word = |at| memory.read_word(Gfn::new(gfn::BOOT).unwrap(), at).unwrap();
        assert_eq!([word(boot::MARK), word(boot::PAGES)], [boot::MARK_WORD, 0x40]);
        assert_eq!([word(boot::WORDS), word(boot::WORDS + 1)], [7, 8]);
        assert_eq!(memory.read_word(Gfn::new(gfn::IMAGE).unwrap(), 0).unwrap() & 0xff, 0xcc);
        Ok((entry, word(boot::IMAGE_END)))
    }

    #[test]
    fn an_image_is_loaded_whether_it_is_a_program_or_bytes() {
        assert_eq!(loaded(&[0xcc; 5000]), Ok((0x1_0000, 0x12)));
        assert_eq!(loaded(&file(0x1_0000, 16, 16)), Ok((0x1_0004, 0x11)));
        assert_eq!(loaded(&file(0x1_0000, 16, 0x1001)), Ok((0x1_0004, 0x12)), "zeroes count");
    }

    #[test]
    fn an_image_that_has_no_place_is_refused() {
        let refused = |file: &[u8]| loaded(file).unwrap_err();
        let misplaced = PlainError::Image("a segment is where none can be");
        assert_eq!(refused(&file(0xf000, 16, 16)), misplaced, "over the tables");
        assert_eq!(refused(&file(0x1_0010, 16, 16)), misplaced, "inside a page");
        assert_eq!(refused(&file(0x1_0000, 16, 15)), misplaced, "more bytes than room");
        let behind = PlainError::Image("a segment is behind the end of memory");
        assert_eq!(refused(&file(0x1_0000, 16, 0x3_0001)), behind);
        assert_eq!(refused(&file(0x1_0000, 16, u64::MAX)), behind);
        assert_eq!(refused(&file(0x1_0000, 16, 16)[..140]), SHORT);
        assert_eq!(refused(&file(0x1_0000, 16, 16)[..60]), SHORT);
        let mut other = file(0x1_0000, 16, 16);
        other[18] = 3;
        assert!(matches!(refused(&other), PlainError::Image(_)));
    }
}
