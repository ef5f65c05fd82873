//! The ciphers of others, called as their own documentation says, page by page.
//!
//! Each has a key of 256 bits (or two, where the mode takes two) that is set up once, and
//! authenticates the same 32 bytes of associated data as our suites, where its interface has such
//! a thing. XTS has no associated data and no tag: it is here as what disks are encrypted with.
//! Where an interface works only in place, the page is copied first, and that copy is its price.

mod aws_lc;
mod openssl;
mod ring;
mod rustcrypto;

use crate::candidate::Candidate;
use crate::id;
use view_core::suite::SuiteId;

/// Every peer, each with its own keys set up.
pub fn peers() -> Vec<Box<dyn Candidate>> {
    let mut peers = aws_lc::peers();
    peers.extend(openssl::peers());
    peers.extend(ring::peers());
    peers.extend(rustcrypto::peers());
    peers
}

/// Peers that must give the same bits as each other, and one suite of ours with one peer.
pub const TWINS: &[(&str, &str)] = &[
    ("siv-cmac-512-seal", "rustcrypto-aes-siv"),
    ("aws-lc-aes-256-gcm", "openssl-aes-256-gcm"),
    ("aws-lc-aes-256-gcm", "ring-aes-256-gcm"),
    ("aws-lc-aes-256-gcm", "rustcrypto-aes-gcm"),
    ("aws-lc-aes-256-gcm-siv", "rustcrypto-aes-gcm-siv"),
    ("openssl-aes-256-xts", "rustcrypto-xts"),
];

/// The key of peers that take one.
const KEY: &[u8; 32] = b"a key like any other, 256 bits !";

/// The keys of XTS: for the data, then for the tweak.
const KEYS: &[u8; 64] = b"a key like any other, 256 bits !and another one for the tweaks !";

/// What is authenticated with a page: what our default suite does.
fn associated_data(number: u64) -> [u8; 32] {
    id(number).associated_data(SuiteId(1))
}

/// The page's number and a version of 1. Twice the same in a bench, never in earnest.
fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..5].copy_from_slice(&number.to_be_bytes()[3..]);
    nonce[11] = 1;
    nonce
}

/// The tweak of XTS: the page's number, as disks have it.
fn tweak(number: u64) -> [u8; 16] {
    u128::from(number).to_le_bytes()
}
