//! RustCrypto's own modes over the `aes` crate that our suites stand on too: AES-256-GCM,
//! AES-256-GCM-SIV and AES-SIV, and AES-256-XTS of the `xts-mode` crate, which works in place only.

use aes::Aes256;
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;
use aes_gcm_siv::Aes256GcmSiv;
use aes_siv::siv::Aes256Siv;
use cipher::{InOutBuf, KeyInit};
use view_core::Page;
use view_core::suite::Tag;
use xts_mode::Xts128;

use super::{KEY, KEYS, associated_data, nonce, tweak};
use crate::candidate::{Candidate, Each, PageByPage};
use crate::key;

pub(super) fn peers() -> Vec<Box<dyn Candidate>> {
    let gcm = Aes256Gcm::new(KEY.into());
    let gcm_siv = Aes256GcmSiv::new(KEY.into());
    let siv = Aes256Siv::new(key().expose().into());
    let [data, tweak] = KEYS.as_chunks::<32>().0 else { unreachable!("two halves") };
    let xts = Xts128::new(Aes256::new(data.into()), Aes256::new(tweak.into()));
    vec![
        Box::new(Each("rustcrypto-aes-gcm", Aead(gcm))),
        Box::new(Each("rustcrypto-aes-gcm-siv", Aead(gcm_siv))),
        Box::new(Each("rustcrypto-aes-siv", Siv(siv))),
        Box::new(Each("rustcrypto-xts", Xts(xts))),
    ]
}

struct Aead<A>(A);

impl<A: AeadInOut + Send> PageByPage for Aead<A> {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        let nonce = nonce(number);
        let nonce = nonce.as_slice().try_into().expect("12 bytes");
        let buffer = InOutBuf::new(plain.bytes(), sealed.bytes_mut()).expect("both are pages");
        let tag = self.0.encrypt_inout_detached(nonce, &associated_data(number), buffer);
        tag.expect("a page is not too long").as_slice().try_into().expect("16 bytes")
    }

    fn open(&mut self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool {
        let nonce = nonce(number);
        let nonce = nonce.as_slice().try_into().expect("12 bytes");
        let tag = tag.as_slice().try_into().expect("16 bytes");
        let buffer = InOutBuf::new(sealed.bytes(), plain.bytes_mut()).expect("both are pages");
        self.0.decrypt_inout_detached(nonce, &associated_data(number), buffer, tag).is_ok()
    }
}

/// RFC 5297 with the page's 32 bytes as the one string of associated data.
struct Siv(Aes256Siv);

impl PageByPage for Siv {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        let headers = [associated_data(number)];
        let (plain, sealed) = (plain.bytes().as_slice(), sealed.bytes_mut().as_mut_slice());
        let buffer = InOutBuf::new(plain, sealed).expect("both are pages");
        self.0.encrypt_inout_detached(headers, buffer).expect("one header").0
    }

    fn open(&mut self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool {
        let headers = [associated_data(number)];
        let (sealed, plain) = (sealed.bytes().as_slice(), plain.bytes_mut().as_mut_slice());
        let buffer = InOutBuf::new(sealed, plain).expect("both are pages");
        self.0.decrypt_inout_detached(headers, buffer, tag.into()).is_ok()
    }
}

struct Xts(Xts128<Aes256>);

impl PageByPage for Xts {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        sealed.bytes_mut().copy_from_slice(plain.bytes());
        self.0.encrypt_sector(sealed.bytes_mut(), tweak(number).into());
        [0; 16]
    }

    fn open(&mut self, number: u64, sealed: &Page, _: &Tag, plain: &mut Page) -> bool {
        plain.bytes_mut().copy_from_slice(sealed.bytes());
        self.0.decrypt_sector(plain.bytes_mut(), tweak(number).into());
        true
    }
}
