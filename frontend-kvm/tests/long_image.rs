//! An image whose pages are opened in many lists: every page comes out in its place, and a forged
//! one is named.

use std::fs::File;
use std::os::unix::fs::FileExt;

use frontend_kvm::image_file::{self, ImageFile, ImageFileError, SealedPages};
use view_core::image::{Geometry, Header, ImageError};
use view_core::key::{EpochKey, RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, PageCipher, PageId, SealJob, Stream};
use view_core::{Epoch, Gfn, MaskId, Page, PageKind, PageState, Perm, Receipt, Version, VmId};

/// Many times what is opened at once, and a rest.
const PAGES: usize = 1100;

const STATE: &[u8] = b"the registers of a CPU";

fn root() -> RootKey {
    RootKey::new([0x42; 32])
}

fn header() -> Header {
    Header {
        vm: VmId([1; 16]),
        epoch: Epoch(7),
        salt: Salt([2; 16]),
        suite: SivCmac512::SUITE,
        sequence: 1,
        pages: PAGES as u64,
        state_len: STATE.len() as u64,
    }
}

fn plain(number: usize) -> Page {
    let mut page = Page::zeroed();
    page.bytes_mut()[..8].copy_from_slice(&number.to_le_bytes());
    page
}

/// One page as an export hands it over.
fn sealed(key: &EpochKey, number: usize) -> (Receipt, Option<Box<Page>>) {
    let id = PageId {
        gfn: Gfn::new(number as u64).unwrap(),
        version: Version::new(1).unwrap(),
        epoch: Epoch(7),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream: Stream::Image,
        excluded: false,
    };
    let cipher = SivCmac512::new(&key.siv(Stream::Image.id()));
    let (plain, mut sealed) = (plain(number), Box::new(Page::zeroed()));
    let mut job = [SealJob::new(id, &plain, &mut sealed)];
    cipher.seal(&mut job, Landing::Hot);
    let tag = job[0].tag();
    let private = PageState::Private;
    let receipt =
        Receipt { gfn: id.gfn, state: private, sealed_as: private, sealed: Some((id, tag)) };
    (receipt, Some(sealed))
}

/// The numbers of the pages that were shown, in order.
fn bodies(file: &File) -> (Vec<usize>, Result<(), ImageFileError>) {
    let root = root();
    let image = ImageFile::open(&root, file).unwrap();
    let manifest = image.verify(None).unwrap();
    let mut shown = vec![];
    let result = image.bodies(&manifest, |record, page| {
        let number = usize::try_from(record.gfn().number()).unwrap();
        assert!(page.bytes() == plain(number).bytes(), "page {number}");
        shown.push(number);
        Ok(())
    });
    (shown, result)
}

#[test]
fn every_page_comes_out_in_its_place_and_a_forged_one_is_named() {
    let header = header();
    let key = root().vm(&header.vm).epoch(header.epoch, &header.salt, header.suite);
    let mut file = tempfile::tempfile().unwrap();
    let next = |from| Ok::<SealedPages, ImageFileError>(vec![sealed(&key, from)]);
    image_file::write(&mut file, &key, &header, STATE, next).unwrap();
    let (shown, result) = bodies(&file);
    result.unwrap();
    assert!(shown.into_iter().eq(0..PAGES));

    let geometry = Geometry::new(header.pages, header.state_len).unwrap();
    for forged in [0, 1, 63, 64, 300, 511, 512, PAGES - 1] {
        let at = geometry.body(Gfn::new(forged as u64).unwrap()).unwrap().start + 1234;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let (shown, result) = bodies(&file);
        let named = matches!(result, Err(ImageFileError::Image(ImageError::PageForged(gfn)))
            if gfn.number() == forged as u64);
        assert!(named, "page {forged} is forged, and it said {result:?}");
        assert!(shown.into_iter().eq(0..forged), "what comes before page {forged} is genuine");
        file.write_all_at(&byte, at).unwrap();
    }
}
