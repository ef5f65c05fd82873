//! ring: AES-256-GCM. It seals in place only, so the page is copied first.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use view_core::Page;
use view_core::suite::Tag;

use super::{KEY, associated_data, nonce};
use crate::candidate::{Candidate, Each, PageByPage};

pub(super) fn peers() -> Vec<Box<dyn Candidate>> {
    let key = UnboundKey::new(&AES_256_GCM, KEY).expect("32 bytes");
    vec![Box::new(Each("ring-aes-256-gcm", Ring(LessSafeKey::new(key))))]
}

struct Ring(LessSafeKey);

impl PageByPage for Ring {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        let aad = Aad::from(associated_data(number));
        sealed.bytes_mut().copy_from_slice(plain.bytes());
        let tag = self.0.seal_in_place_separate_tag(nonce, aad, sealed.bytes_mut());
        let tag = tag.expect("a page is not too long");
        tag.as_ref().try_into().expect("16 bytes")
    }

    fn open(&mut self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        let aad = Aad::from(associated_data(number));
        plain.bytes_mut().copy_from_slice(sealed.bytes());
        let tag = (*tag).into();
        self.0.open_in_place_separate_tag(nonce, aad, tag, plain.bytes_mut(), 0..).is_ok()
    }
}
