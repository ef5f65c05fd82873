//! The owner's signatures, made by hand from spec/sealed-image.md: for machines whose reader
//! believes what the shipped one would not.

use aes::Aes256Enc;
use cmac::{Cmac, KeyInit, Mac};
use view_core::PAGE_SIZE;
use view_core::image::TRAILER_SIZE;
use view_core::key::{EpochKey, ManifestKey};
use view_core::suite::siv::Siv512;

use super::kept::STATE_LEN;

/// How many records or nodes a node covers.
pub(super) const FANOUT: usize = 64;

/// How a manifest is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// As the format says.
    Sound,
    /// Neither a node's level nor its count is in it: one node of two nodes is one of a record.
    /// What RFC 6962, section 2.1, keeps apart by a first byte.
    Alike,
    /// A node that is not full is filled up with its last child, and nothing counts
    /// (CVE-2012-2459).
    Filled,
    /// The children of a node are added up, so that their order is lost.
    Added,
}

fn mac(key: &ManifestKey, parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Cmac::<Aes256Enc>::new(key.expose().into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().0
}

/// The trailer of an image with this header, state and manifest.
pub(super) fn trailer(
    key: &ManifestKey,
    pages: u64,
    header_tag: &[u8],
    state_tag: &[u8],
    manifest: [u8; 16],
) -> [u8; TRAILER_SIZE] {
    let end = [[0x52, 0, 0, 0, 0, 0, 0, 0], pages.to_le_bytes()].concat();
    let root = mac(key, &[header_tag, state_tag, &manifest, &end]);
    let mut trailer = [0; TRAILER_SIZE];
    for (to, from) in trailer.chunks_exact_mut(16).zip([state_tag, &manifest, &root]) {
        to.copy_from_slice(from);
    }
    trailer
}

/// The nodes of one level over what is below it.
fn level(key: &ManifestKey, fold: Fold, level: u8, below: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let node = |(index, children): (u64, &[Vec<u8>])| {
        let count = u8::try_from(children.len()).unwrap_or(u8::MAX);
        let (mut children, mut head) = (children.to_vec(), [0x4d, level, count, 0, 0, 0, 0, 0]);
        match fold {
            Fold::Sound => {}
            Fold::Alike => head = [0x4d, 0, 0, 0, 0, 0, 0, 0],
            Fold::Filled => {
                head[2] = 0;
                let last = children.last().cloned().unwrap_or_default();
                children.resize(FANOUT, last);
            }
            Fold::Added => {
                let mut sum = vec![0; children.first().map_or(0, Vec::len)];
                children.iter().flat_map(|child| child.iter().enumerate()).for_each(
                    |(at, byte)| {
                        sum[at] ^= byte;
                    },
                );
                children = vec![sum];
            }
        }
        mac(key, &[&children.concat(), &head, &index.to_le_bytes()]).to_vec()
    };
    (0..).zip(below.chunks(FANOUT)).map(node).collect()
}

/// The lowest nodes over some records.
pub(super) fn leaves(key: &ManifestKey, fold: Fold, records: &[u8]) -> Vec<Vec<u8>> {
    level(key, fold, 0, &split(records))
}

/// The root of a manifest over some records.
pub(super) fn manifest(key: &ManifestKey, fold: Fold, records: &[u8]) -> [u8; 16] {
    let mut nodes = split(records);
    let mut height = 0;
    while height == 0 && !nodes.is_empty() || nodes.len() > 1 {
        nodes = level(key, fold, height, &nodes);
        height += 1;
    }
    nodes.first().and_then(|root| root.as_slice().try_into().ok()).unwrap_or([0; 16])
}

fn split(records: &[u8]) -> Vec<Vec<u8>> {
    records.chunks(32).map(<[u8]>::to_vec).collect()
}

/// A state of which every byte is the same, sealed for the image with this header, and its tag.
pub(super) fn state(key: &EpochKey, header_tag: &[u8], byte: u8) -> (Vec<u8>, Vec<u8>) {
    let mut state = vec![0; PAGE_SIZE];
    state[..STATE_LEN].fill(byte);
    let siv = Siv512::new(key.state().expose());
    let tag = siv.seal(&[&[0x53], header_tag], &mut state);
    (state, tag.to_vec())
}
