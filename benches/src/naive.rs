//! What one writes first, and what every claim about speed is held against.

use aes::{Aes256, Aes256Enc};
use cipher::{InnerIvInit, KeyInit, StreamCipher};
use cmac::{Cmac, Mac};
use view_core::Page;
use view_core::key::SivKey;
use view_core::suite::{SuiteId, Tag};

use crate::id;

/// CTR and then CMAC over the sealed bytes, a page at a time, with the `ctr` and `cmac` crates and
/// both key schedules kept.
#[derive(Debug)]
pub struct Naive {
    ctr: Aes256Enc,
    mac: Cmac<Aes256>,
}

impl Naive {
    /// The peer under the same two keys.
    pub fn new(key: &SivKey) -> Self {
        let (mac, ctr) = key.expose().split_at(32);
        Self {
            ctr: Aes256Enc::new_from_slice(ctr).expect("32 bytes"),
            mac: Cmac::new_from_slice(mac).expect("32 bytes"),
        }
    }

    /// Seals one page.
    pub fn seal(&self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        self.stream(number, plain, sealed);
        self.tag(number, sealed).finalize().into_bytes().into()
    }

    /// Opens one page; whether it was genuine.
    pub fn open(&self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool {
        self.stream(number, sealed, plain);
        self.tag(number, sealed).verify(tag.into()).is_ok()
    }

    fn stream(&self, number: u64, from: &Page, to: &mut Page) {
        let id = id(number);
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&id.gfn.number().to_be_bytes());
        iv[8..12].copy_from_slice(&id.version.number().to_be_bytes()[4..]);
        let core = ctr::CtrCore::inner_iv_init(&self.ctr, &iv.into());
        let mut stream = ctr::Ctr128BE::from_core(core);
        stream.apply_keystream_b2b(from.bytes(), to.bytes_mut());
    }

    fn tag(&self, number: u64, sealed: &Page) -> Cmac<Aes256> {
        let mut mac = self.mac.clone();
        mac.update(&id(number).associated_data(SuiteId(2)));
        mac.update(sealed.bytes());
        mac
    }
}
