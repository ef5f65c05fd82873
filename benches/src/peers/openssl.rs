//! The system's OpenSSL: AES-256-GCM, and AES-256-XTS as disks have it, through EVP with one
//! context a direction, whose key stays while the nonce changes.

use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use view_core::Page;
use view_core::suite::Tag;

use super::{KEY, KEYS, associated_data, nonce, tweak};
use crate::candidate::{Candidate, Each, PageByPage};

pub(super) fn peers() -> Vec<Box<dyn Candidate>> {
    let gcm = Gcm(Contexts::new(Cipher::aes_256_gcm(), KEY));
    let xts = Xts(Contexts::new(Cipher::aes_256_xts(), KEYS));
    vec![Box::new(Each("openssl-aes-256-gcm", gcm)), Box::new(Each("openssl-aes-256-xts", xts))]
}

struct Contexts {
    seals: CipherCtx,
    opens: CipherCtx,
}

impl Contexts {
    fn new(cipher: &CipherRef, key: &[u8]) -> Self {
        let context = || CipherCtx::new().expect("memory for a context");
        let (mut seals, mut opens) = (context(), context());
        seals.encrypt_init(Some(cipher), Some(key), None).expect("a key of its length");
        opens.decrypt_init(Some(cipher), Some(key), None).expect("a key of its length");
        Self { seals, opens }
    }
}

/// What a page gives to EVP is never refused.
const FITS: &str = "EVP takes a page";

struct Gcm(Contexts);

impl PageByPage for Gcm {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        let context = &mut self.0.seals;
        let (mut tag, mut end) = ([0; 16], [0; 16]);
        context.encrypt_init(None, None, Some(&nonce(number))).expect(FITS);
        context.cipher_update(&associated_data(number), None).expect(FITS);
        context.cipher_update(plain.bytes(), Some(sealed.bytes_mut())).expect(FITS);
        context.cipher_final(&mut end).expect(FITS);
        context.tag(&mut tag).expect(FITS);
        tag
    }

    fn open(&mut self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool {
        let context = &mut self.0.opens;
        context.decrypt_init(None, None, Some(&nonce(number))).expect(FITS);
        context.cipher_update(&associated_data(number), None).expect(FITS);
        context.cipher_update(sealed.bytes(), Some(plain.bytes_mut())).expect(FITS);
        context.set_tag(tag).expect(FITS);
        context.cipher_final(&mut [0; 16]).is_ok()
    }
}

struct Xts(Contexts);

impl PageByPage for Xts {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        let context = &mut self.0.seals;
        context.encrypt_init(None, None, Some(&tweak(number))).expect(FITS);
        context.cipher_update(plain.bytes(), Some(sealed.bytes_mut())).expect(FITS);
        [0; 16]
    }

    fn open(&mut self, number: u64, sealed: &Page, _: &Tag, plain: &mut Page) -> bool {
        let context = &mut self.0.opens;
        context.decrypt_init(None, None, Some(&tweak(number))).expect(FITS);
        context.cipher_update(sealed.bytes(), Some(plain.bytes_mut())).expect(FITS);
        true
    }
}
