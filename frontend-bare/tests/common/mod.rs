//! A machine of plain memory, whose CPUs remember whatever they once found.

use std::collections::BTreeMap;

use frontend_bare::ciphers::Ciphers;
use frontend_bare::memory::{Host, HostMemory};
use view_core::key::{RootKey, Salt};
use view_core::{Epoch, Frame, Gfn, Page, Perm, Target, View, VmId};

/// A machine whose CPUs remember everything.
pub(crate) struct Machine {
    memory: Vec<Page>,
    pub(crate) remembered: BTreeMap<(View, Gfn), (Frame, Perm)>,
    pub(crate) sent: BTreeMap<Gfn, Box<Page>>,
}

impl Machine {
    /// So many frames of zeroes.
    pub(crate) fn new(frames: u64) -> Self {
        let memory = (0..frames).map(|_| Page::zeroed()).collect();
        Self { memory, remembered: BTreeMap::new(), sent: BTreeMap::new() }
    }

    pub(crate) fn page(&self, frame: Frame) -> &Page {
        &self.memory[at(frame)]
    }

    fn word(&self, frame: Frame, index: usize) -> u64 {
        let (words, _) = self.memory[at(frame)].bytes().as_chunks::<8>();
        u64::from_le_bytes(words[index])
    }

    pub(crate) fn set_word(&mut self, frame: Frame, index: usize, word: u64) {
        let (words, _) = self.memory[at(frame)].bytes_mut().as_chunks_mut::<8>();
        words[index] = word.to_le_bytes();
    }
}

fn at(frame: Frame) -> usize {
    usize::try_from(frame.number()).unwrap()
}

impl HostMemory for Machine {
    fn entry(&self, table: Frame, index: usize) -> u64 {
        self.word(table, index)
    }

    fn set_entry(&mut self, table: Frame, index: usize, entry: u64) {
        self.set_word(table, index, entry);
    }

    fn read(&self, frame: Frame, to: &mut Page) {
        to.clone_from(&self.memory[at(frame)]);
    }

    fn write(&mut self, frame: Frame, from: &Page) {
        self.memory[at(frame)].clone_from(from);
    }

    fn wipe(&mut self, frame: Frame) {
        self.memory[at(frame)] = Page::zeroed();
    }
}

impl Host for Machine {
    fn flush(&mut self) {
        self.remembered.clear();
    }

    fn send(&mut self, page: &Target, sealed: &Page) -> bool {
        self.sent.insert(page.gfn, Box::new(sealed.clone()));
        true
    }
}

/// The keys of some guest.
pub(crate) fn ciphers() -> Ciphers {
    Ciphers::new(&RootKey::new([3; 32]), &VmId([1; 16]), (Epoch(1), &Salt([2; 16])))
}
