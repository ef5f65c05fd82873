//! A machine of plain memory with one CPU, which forgets nothing until it is told to: neither pages
//! nor the tables that led to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use frontend_bare::machine::Machine;
use frontend_bare::memory::{Host, HostMemory};
use frontend_bare::permission_map::IoAccess;
use view_core::{Frame, Page, Target};

/// Where something is remembered: the ASID, and the number of a page or of 512 of them.
type Place = (u32, u64);

/// A frame, and whether it may be written.
type Leads = (u64, bool);

/// Bits of entries.
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Why an access does not get through: whether there is a page at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) present: bool,
}

/// The machine.
pub(crate) struct Mock {
    memory: Vec<Page>,
    own: Range<u64>,
    pages: BTreeMap<Place, Leads>,
    tables: BTreeMap<Place, Leads>,
    flush_due: bool,
    sent: Option<Box<Page>>,
    pub(crate) console: Vec<String>,
    /// Frames that were written to since somebody emptied this.
    pub(crate) written: BTreeSet<u64>,
    pub(crate) flushes: u64,
    randoms: u8,
    pub(crate) breakpoints: [u64; 4],
    pub(crate) written_back: u32,
}

impl Mock {
    /// So many frames of zeroes, of which some are the monitor's.
    pub(crate) fn new(frames: u64, own: Range<u64>) -> Self {
        Self {
            memory: (0..frames).map(|_| Page::zeroed()).collect(),
            own,
            pages: BTreeMap::new(),
            tables: BTreeMap::new(),
            flush_due: true,
            sent: None,
            console: vec![],
            written: BTreeSet::new(),
            flushes: 0,
            randoms: 0,
            breakpoints: [0; 4],
            written_back: 0,
        }
    }

    pub(crate) fn page(&self, frame: u64) -> Option<&Page> {
        self.memory.get(usize::try_from(frame).unwrap())
    }

    fn page_mut(&mut self, frame: u64) -> Option<&mut Page> {
        self.written.insert(frame);
        self.memory.get_mut(usize::try_from(frame).unwrap())
    }

    /// A word of memory, whoever may see it.
    pub(crate) fn word(&self, frame: u64, index: usize) -> u64 {
        let Some(page) = self.page(frame) else { return 0 };
        let (words, _) = page.bytes().as_chunks::<8>();
        u64::from_le_bytes(words[index])
    }

    pub(crate) fn set_word(&mut self, frame: u64, index: usize, word: u64) {
        let Some(page) = self.page_mut(frame) else { return };
        let (words, _) = page.bytes_mut().as_chunks_mut::<8>();
        words[index] = word.to_le_bytes();
    }

    /// Some frame that has this word in it, but for those that are left out.
    pub(crate) fn find(&self, word: u64, left_out: impl Fn(u64) -> bool) -> Option<u64> {
        let has = |page: &Page| {
            let (words, _) = page.bytes().as_chunks::<8>();
            words.contains(&word.to_le_bytes())
        };
        let frames = (0..).zip(&self.memory).filter(|(frame, _)| !left_out(*frame));
        frames.into_iter().find(|(_, page)| has(page)).map(|(frame, _)| frame)
    }

    /// What the CPU does before VMRUN if the control block says so.
    pub(crate) fn forget(&mut self) {
        self.flushes += 1;
        self.pages.clear();
        self.tables.clear();
    }

    /// The frame that an address leads to under an ASID: as the CPU remembers it, or else as the
    /// tables say, which it then remembers.
    pub(crate) fn translate(
        &mut self,
        (asid, root): (u32, u64),
        page: u64,
        write: bool,
    ) -> Result<u64, Fault> {
        if let Some((frame, writable)) = self.pages.get(&(asid, page))
            && (*writable || !write)
        {
            return Ok(*frame);
        }
        self.pages.remove(&(asid, page));
        let found = self.remembered_leaf(asid, page).or_else(|| {
            let (table, found) = self.walk(root, page)?;
            self.tables.extend(table.map(|table| ((asid, page >> 9), table)));
            Some(found)
        });
        let Some((frame, writable)) = found else { return Err(Fault { present: false }) };
        if write && !writable {
            return Err(Fault { present: true });
        }
        self.pages.insert((asid, page), (frame, writable));
        Ok(frame)
    }

    /// Through a table that the CPU remembers.
    fn remembered_leaf(&self, asid: u32, page: u64) -> Option<Leads> {
        let (table, writable) = self.tables.get(&(asid, page >> 9))?;
        let entry = self.word(*table, page as usize % 512);
        let present = entry & PRESENT != 0;
        present.then_some(((entry & ADDRESS) >> 12, *writable && entry & WRITABLE != 0))
    }

    /// Through the tables as they are, four levels of them: the last table on the way and the
    /// frame, and whether both may be written.
    pub(crate) fn walk(&self, root: u64, page: u64) -> Option<(Option<Leads>, Leads)> {
        let (mut last, mut table, mut writable) = (None, root, true);
        for level in (0..4).rev() {
            let entry = self.word(table, (page >> (9 * level)) as usize % 512);
            if entry & (PRESENT | USER) != PRESENT | USER {
                return None;
            }
            writable &= entry & WRITABLE != 0;
            let frame = (entry & ADDRESS) >> 12;
            if level == 0 || entry & LARGE != 0 {
                return Some((last, (frame + page % (1 << (9 * level)), writable)));
            }
            last = (level == 1).then_some((frame, writable));
            table = frame;
        }
        None
    }

    /// What the CPU remembers of pages under an ASID: their numbers and frames.
    pub(crate) fn remembered(&self, asid: u32) -> impl Iterator<Item = (u64, Leads)> + '_ {
        let pages = self.pages.range((asid, 0)..=(asid, u64::MAX));
        pages.map(|((_, page), leads)| (*page, *leads))
    }
}

/// As the image has it: the monitor has a null pointer and no first frame, but CPUs do.
impl HostMemory for Mock {
    fn entry(&self, table: Frame, index: usize) -> u64 {
        if self.reaches(table) { self.word(table.number(), index) } else { 0 }
    }

    fn set_entry(&mut self, table: Frame, index: usize, entry: u64) {
        if self.reaches(table) {
            self.set_word(table.number(), index, entry);
        }
    }

    fn read(&self, frame: Frame, to: &mut Page) {
        match self.page(frame.number()).filter(|_| self.reaches(frame)) {
            Some(page) => to.clone_from(page),
            None => *to = Page::zeroed(),
        }
    }

    fn write(&mut self, frame: Frame, from: &Page) {
        if let Some(page) = self.reaches(frame).then(|| self.page_mut(frame.number())).flatten() {
            page.clone_from(from);
        }
    }

    fn wipe(&mut self, frame: Frame) {
        self.write(frame, &Page::zeroed());
    }
}

impl Host for Mock {
    fn flush(&mut self) {
        self.flush_due = true;
    }

    fn send(&mut self, _: &Target, sealed: &Page) -> bool {
        self.sent = Some(Box::new(sealed.clone()));
        true
    }
}

impl Machine for Mock {
    fn is_own(&self, frame: Frame) -> bool {
        self.own.contains(&frame.number())
    }

    fn reaches(&self, frame: Frame) -> bool {
        frame.number() != 0 && self.page(frame.number()).is_some()
    }

    fn write_back(&mut self) {
        self.written_back += 1;
    }

    fn cpuid(&self, leaf: u32, _: u32) -> [u32; 4] {
        match leaf {
            // x87, SSE, AVX, and bounds, which the monitor does not know.
            0xd => [0x1f, 0x340, 0x340, 0],
            _ => [leaf, 2, 3, 4],
        }
    }

    fn breakpoints(&self) -> [u64; 4] {
        self.breakpoints
    }

    fn set_breakpoints(&mut self, addresses: [u64; 4]) {
        self.breakpoints = addresses;
    }

    fn read_msr(&mut self, _: u32) -> Option<u64> {
        Some(0)
    }

    fn write_msr(&mut self, _: u32, _: u64) -> bool {
        true
    }

    fn read_port(&mut self, _: IoAccess) -> u32 {
        0
    }

    fn write_port(&mut self, _: IoAccess, _: u32) {}

    fn ticks(&self) -> u64 {
        0
    }

    fn random(&mut self) -> [u8; 16] {
        self.randoms = self.randoms.wrapping_add(1);
        [self.randoms; 16]
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        self.console.push(line.to_string());
    }

    fn take_sent(&mut self, to: &mut Page) -> bool {
        let sent = self.sent.take();
        sent.is_some_and(|page| {
            to.clone_from(&page);
            true
        })
    }

    fn take_flush(&mut self) -> bool {
        std::mem::take(&mut self.flush_due)
    }
}
