//! The tree over an image's records, alone.
//!
//! In an image three locks stand before another list of records: the header's tag, the image root,
//! and the tree. Here the keeper is handed the owner's signature under any number of pages, and
//! under any manifest that was ever made together with any header: what is left is the tree.

use std::collections::BTreeMap;
use std::fmt;

use view_core::image::{HEADER_SIZE, ImageError, ImageReader, ImageWriter, Record};

use super::kept::{self, header_tag};
use super::signed::{self, Fold};
use super::{After, Found, Model, Study, Wanted, Wrong};

/// The study of the manifest's tree.
pub(super) const TREE: Study = Study {
    name: "tree",
    purpose: "other lists of records under a manifest that was signed, whatever counts are signed",
    bounds: "manifests of 0 to 129 records, 2 changes at the edges of nodes",
    claims: &[],
    wrongs: &[
        Wrong {
            name: "leaf-like-node",
            sentence: "leaves and nodes of the manifest are hashed alike and uncounted",
            caught_by: &["F6"],
        },
        Wrong {
            name: "manifest-without-count",
            sentence: "a node that is not full is filled up with its last child, uncounted",
            caught_by: &["F6"],
        },
        Wrong {
            name: "manifest-without-order",
            sentence: "the children of a node are added up",
            caught_by: &["F6"],
        },
    ],
    reaches: &[
        "a genuine manifest is believed",
        "a shorter list is refused",
        "a longer list is refused",
        "another order is refused",
        "a record made of two nodes is refused",
    ],
    explore,
};

const EPOCH: u64 = 1;
const CHANGES_MAX: u8 = 2;
/// How many records the lists have that were signed: about a leaf, a node, and two levels.
const SIGNED: [u8; 8] = [0, 1, 2, 3, 64, 65, 66, 129];

/// What stands where a record should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leaf {
    /// The record of this page.
    Record(u8),
    /// Two nodes of the signed manifest, from this one on.
    Nodes(u8),
    /// What an older image has for this page.
    Older(u8),
}

/// A list, shown under the manifest of the signed list with this many records.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct List {
    signed: u8,
    leaves: Vec<Leaf>,
    changes: u8,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Begin(u8),
    Remove(u8),
    Repeat(u8),
    Swap(u8, u8),
    Replace(u8, Leaf),
    /// Two nodes take the place of all that they cover.
    Collapse(u8),
    Read,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(records) => write!(f, "owner signs {records} records"),
            Self::Remove(at) => write!(f, "keeper takes record {at} out"),
            Self::Repeat(at) => write!(f, "keeper repeats record {at}"),
            Self::Swap(one, other) => write!(f, "keeper swaps records {one} and {other}"),
            Self::Replace(at, leaf) => write!(f, "keeper puts {leaf:?} in place of record {at}"),
            Self::Collapse(node) => {
                write!(f, "keeper puts nodes {node} and {} in place of their records", node + 1)
            }
            Self::Read => f.write_str("owner reads it"),
        }
    }
}

struct Manifests {
    fold: Fold,
    /// What the owner signed: by number of pages, a header and its reader.
    headers: BTreeMap<usize, (Vec<u8>, ImageReader)>,
    /// By number of records: the signed manifest's nodes and root, as this machine folds them.
    signed: BTreeMap<u8, Vec<Vec<u8>>>,
}

/// The stored form of a page's record: no two are alike.
fn record(page: u8, older: bool) -> [u8; 32] {
    let mut record = [0; 32];
    record[0] = page;
    record[1] = 0xa0 | u8::from(older);
    record[16] = if older { 1 } else { 2 };
    [record[24], record[29]] = [1, 1];
    record
}

impl Manifests {
    fn new(wrong: Option<&'static str>) -> Self {
        let fold = match wrong {
            Some("leaf-like-node") => Fold::Alike,
            Some("manifest-without-count") => Fold::Filled,
            Some("manifest-without-order") => Fold::Added,
            _ => Fold::Sound,
        };
        let key = kept::key(EPOCH);
        let header = |pages: usize| {
            let mut block = [0; HEADER_SIZE];
            let header = kept::header(EPOCH, 1, pages as u64);
            let _ = ImageWriter::new(&key, &header, &mut block).expect("within limits");
            (pages, (block.to_vec(), kept::reader(&block, None).expect("genuine")))
        };
        let most = usize::from(SIGNED[SIGNED.len() - 1] + CHANGES_MAX);
        let headers = (0..=most).map(header).collect();
        let nodes = |records: u8| {
            let all: Vec<u8> = (0..records).flat_map(|page| record(page, false)).collect();
            (records, signed::leaves(&key.manifest(), fold, &all))
        };
        Self { fold, headers, signed: SIGNED.into_iter().map(nodes).collect() }
    }

    fn bytes(&self, list: &List) -> Vec<u8> {
        let leaf = |leaf: &Leaf| match *leaf {
            Leaf::Record(page) => record(page, false).to_vec(),
            Leaf::Older(page) => record(page, true).to_vec(),
            Leaf::Nodes(node) => self.signed[&list.signed]
                .iter()
                .skip(usize::from(node))
                .take(2)
                .flatten()
                .copied()
                .collect(),
        };
        list.leaves.iter().flat_map(leaf).collect()
    }

    /// Whether the manifest that was signed is believed of this list.
    fn believed(&self, list: &List) -> bool {
        let key = kept::key(EPOCH).manifest();
        let shown = self.bytes(list);
        let all: Vec<u8> = (0..list.signed).flat_map(|page| record(page, false)).collect();
        let fold = |records: &[u8]| signed::manifest(&key, self.fold, records);
        // A reader that folds otherwise and sees no difference takes the one for the other.
        let taken = if fold(&shown) == fold(&all) { &shown } else { &all };
        let manifest = signed::manifest(&key, Fold::Sound, taken);
        let (header, reader) = &self.headers[&list.leaves.len()];
        let pages = list.leaves.len() as u64;
        let trailer = signed::trailer(&key, pages, header_tag(header), &[0; 16], manifest);
        let records: Vec<Record> = kept::records(&shown);
        match reader.verify(&records, &trailer, None) {
            // What a record says is looked at once the tree vouches for it.
            Ok(_) | Err(ImageError::BadRecord(_)) => true,
            Err(_) => false,
        }
    }
}

/// The places of a list where something can go wrong: its ends, and the edges of nodes.
fn places(list: &List) -> Vec<u8> {
    let end = u8::try_from(list.leaves.len()).unwrap_or(u8::MAX);
    let mut places = vec![0, 1, 63, 64, 65, end.wrapping_sub(1)];
    places.retain(|place| *place < end);
    places.sort_unstable();
    places.dedup();
    places
}

impl Model for Manifests {
    type State = List;
    type Event = Change;

    fn start(&self) -> List {
        List { signed: u8::MAX, ..List::default() }
    }

    fn events(&self, list: &List) -> Vec<Change> {
        if list.signed == u8::MAX {
            return SIGNED.map(Change::Begin).to_vec();
        }
        let mut events = vec![Change::Read];
        if list.changes == CHANGES_MAX {
            return events;
        }
        let places = places(list);
        let nodes = (0..).take(self.signed[&list.signed].len().saturating_sub(1));
        for &at in &places {
            events.extend([Change::Remove(at), Change::Repeat(at)]);
            events.extend(places.iter().filter(|p| **p > at).map(|p| Change::Swap(at, *p)));
            events.push(Change::Replace(at, Leaf::Older(at)));
            events.extend(nodes.clone().map(|node| Change::Replace(at, Leaf::Nodes(node))));
        }
        events.extend(nodes.map(Change::Collapse));
        events
    }

    fn apply(&self, list: &List, change: Change) -> After<List> {
        let mut state = list.clone();
        state.changes += u8::from(!matches!(change, Change::Read | Change::Begin(_)));
        let leaves = &mut state.leaves;
        match change {
            Change::Begin(records) => {
                *leaves = (0..records).map(Leaf::Record).collect();
                state.signed = records;
            }
            Change::Remove(at) => drop(leaves.remove(usize::from(at))),
            Change::Repeat(at) => leaves.insert(usize::from(at), leaves[usize::from(at)]),
            Change::Swap(one, other) => leaves.swap(usize::from(one), usize::from(other)),
            Change::Replace(at, leaf) => leaves[usize::from(at)] = leaf,
            Change::Collapse(node) => {
                let covered =
                    |at: usize| leaves.len().min((usize::from(node) + at) * signed::FANOUT);
                let covered = covered(0)..covered(2);
                leaves.splice(covered, [Leaf::Nodes(node)]);
            }
            Change::Read => {
                let (broken, reached) = self.read(list);
                return After { state, broken, reached };
            }
        }
        After { state, ..After::default() }
    }
}

impl Manifests {
    fn read(&self, list: &List) -> (Vec<&'static str>, Vec<&'static str>) {
        let believed = self.believed(list);
        let genuine = list.leaves.iter().copied().eq((0..list.signed).map(Leaf::Record));
        let broken = if believed == genuine { Vec::new() } else { vec!["F6"] };
        let of_nodes = list.leaves.iter().any(|leaf| matches!(leaf, Leaf::Nodes(_)));
        let name = match list.leaves.len().cmp(&usize::from(list.signed)) {
            _ if believed => "a genuine manifest is believed",
            _ if of_nodes => "a record made of two nodes is refused",
            std::cmp::Ordering::Less => "a shorter list is refused",
            std::cmp::Ordering::Greater => "a longer list is refused",
            std::cmp::Ordering::Equal => "another order is refused",
        };
        (broken, vec![name])
    }
}

fn explore(wanted: Wanted) -> Found {
    super::explore(&Manifests::new(wanted.wrong), wanted)
}
