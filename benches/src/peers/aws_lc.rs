//! AWS-LC through aws-lc-rs: AES-256-GCM and AES-256-GCM-SIV.

use aws_lc_rs::aead::{
    AES_256_GCM, AES_256_GCM_SIV, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey,
};
use view_core::Page;
use view_core::suite::Tag;

use super::{KEY, associated_data, nonce};
use crate::candidate::{Candidate, Each, PageByPage};

pub(super) fn peers() -> Vec<Box<dyn Candidate>> {
    vec![
        Box::new(Each("aws-lc-aes-256-gcm", AwsLc::new(&AES_256_GCM))),
        Box::new(Each("aws-lc-aes-256-gcm-siv", AwsLc::new(&AES_256_GCM_SIV))),
    ]
}

struct AwsLc(LessSafeKey);

impl AwsLc {
    fn new(algorithm: &'static Algorithm) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(algorithm, KEY).expect("32 bytes")))
    }
}

impl PageByPage for AwsLc {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        let aad = Aad::from(associated_data(number));
        let mut tag = [0; 16];
        let (plain, sealed) = (plain.bytes(), sealed.bytes_mut());
        let done = self.0.seal_out_of_place_scatter(nonce, aad, plain, sealed, &[], &mut tag);
        done.expect("a page is not too long");
        tag
    }

    fn open(&mut self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        let aad = Aad::from(associated_data(number));
        self.0.open_separate_gather(nonce, aad, sealed.bytes(), tag, plain.bytes_mut()).is_ok()
    }
}
