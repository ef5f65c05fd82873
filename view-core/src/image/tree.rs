//! The manifest: a tree of CMACs over the records of an image, computed as they pass by.
//!
//! It holds one unfinished node a level and the last few records, under 3 KiB in all however many
//! pages there are (spec/sealed-image.md, "Records").

use core::fmt;

use aes::Aes256Enc;
use cipher::KeyInit;
use cipher::array::Array;
use cmac::{Cmac, Mac};
use heapless::Vec;
use zerocopy::IntoBytes;

use super::record::Record;
use crate::addr::Gfn;
use crate::key::ManifestKey;
use crate::suite::Tag;

/// How many records or nodes a node covers.
const FANOUT: u8 = 64;
/// Enough for one record a guest frame number.
const LEVELS: usize = 7;

const _: () = assert!(6 * 7 >= Gfn::BITS);

/// How many records are hashed at once: one by one costs almost three times as much.
const RUN: usize = 16;

const _: () = assert!(64 % RUN == 0); // so that only a last node ends within a run

/// Keeps nodes apart from image roots, under one key.
const DOMAIN_NODE: u8 = 0x4d;

/// The tree over the records that were pushed so far.
pub(super) struct Tree {
    levels: [Level; LEVELS],
    run: Vec<Record, RUN>,
    records: u64,
}

/// One level's unfinished node.
struct Level {
    mac: Cmac<Aes256Enc>,
    level: u8,
    count: u8,
    index: u64,
}

impl Tree {
    pub(super) fn new(key: &ManifestKey) -> Self {
        let mac = Cmac::new(&Array(*key.expose()));
        let mut level = 0..;
        let levels = core::array::from_fn(|_| Level {
            mac: mac.clone(),
            level: level.next().unwrap_or_default(),
            count: 0,
            index: 0,
        });
        Self { levels, run: Vec::new(), records: 0 }
    }

    /// How many records were pushed.
    pub(super) const fn records(&self) -> u64 {
        self.records
    }

    /// Takes the record of the next page.
    pub(super) fn push(&mut self, record: &Record) {
        if self.run.push(*record).is_ok() {
            self.records = self.records.saturating_add(1);
        }
        if self.run.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let count = u8::try_from(self.run.len()).unwrap_or_default();
        carry(&mut self.levels, self.run.as_bytes(), count);
        self.run.clear();
    }

    /// The manifest root. Unfinished nodes are finished as they are, level by level, up to the
    /// level that has only one.
    pub(super) fn finish(mut self) -> Tag {
        if !self.run.is_empty() {
            self.flush();
        }
        let mut levels = self.levels.as_mut_slice();
        while let Some((level, above)) = levels.split_first_mut()
            && self.records > 0
        {
            let alone = level.index == 0;
            let node = level.close();
            if alone {
                return node;
            }
            carry(above, &node, 1);
            levels = above;
        }
        [0; 16]
    }
}

/// Adds so many children to the lowest level, and to the next one what that makes full.
fn carry(levels: &mut [Level], children: &[u8], count: u8) {
    let Some((lowest, above)) = levels.split_first_mut() else { return };
    let mut node = lowest.absorb(children, count);
    for level in above {
        let Some(full) = node else { return };
        node = level.absorb(&full, 1);
    }
}

impl Level {
    /// Takes more children. A node that is full is closed only now, so that the last node of a
    /// level is always an open one.
    fn absorb(&mut self, children: &[u8], count: u8) -> Option<Tag> {
        let full = (self.count == FANOUT).then(|| self.close());
        self.mac.update(children);
        self.count = self.count.saturating_add(count);
        full
    }

    /// Finishes the node and begins the next one.
    fn close(&mut self) -> Tag {
        self.mac.update(&[DOMAIN_NODE, self.level, self.count, 0, 0, 0, 0, 0]);
        self.mac.update(&self.index.to_le_bytes());
        self.count = 0;
        self.index = self.index.saturating_add(1);
        self.mac.finalize_reset().into_bytes().0
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("records", &self.records).finish_non_exhaustive()
    }
}
