//! Entries of tables, as words of a frame: what any bytes mean to hardware that walks them.

/// What an entry is.
pub(super) type Word = u16;
/// How many entries a table has.
pub(super) const ENTRIES: usize = 4;

/// The entry leads somewhere.
pub(super) const PRESENT: Word = 1;
/// What is below may be written.
pub(super) const WRITE: Word = 2;
/// Hardware used the entry.
pub(super) const ACCESSED: Word = 4;
/// The entry of a root is a leaf for four frames in a row.
pub(super) const LARGE: Word = 8;

const TARGET_SHIFT: u32 = 4;

/// An entry that leads to a frame or an address.
pub(super) const fn entry(to: u8, flags: Word) -> Word {
    (to as Word) << TARGET_SHIFT | flags | PRESENT
}

/// Where an entry leads.
pub(super) const fn target(word: Word) -> u8 {
    let [to, _] = (word >> TARGET_SHIFT).to_le_bytes();
    to
}
