//! Images in memory: sealed and read as a frontend would, in order and through no file.

use std::ops::Range;

use view_core::image::{
    GenuineRecord, HEADER_SIZE, Header, ImageError, ImageReader, ImageRoot, ImageWriter, Record,
    TRAILER_SIZE,
};
use view_core::key::{EpochKey, RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, PageCipher, PageId, SealJob, Stream};
use view_core::{
    Epoch, Gfn, MaskId, PAGE_SIZE, Page, PageKind, PageState, Perm, Receipt, Version, VmId,
};

/// A key that ends in these bytes counted up.
pub(crate) fn root_key() -> RootKey {
    RootKey::new(std::array::from_fn(|index| index as u8))
}

/// The header of the image that most tests seal.
pub(crate) fn header(pages: u64, state: &[u8]) -> Header {
    Header {
        vm: VmId(std::array::from_fn(|index| 0xa0 + index as u8)),
        epoch: Epoch(0x0102_0304_0506_0708),
        salt: Salt(std::array::from_fn(|index| 0x50 + index as u8)),
        suite: SivCmac512::SUITE,
        sequence: 0x1112_1314_1516_1718,
        pages,
        state_len: state.len() as u64,
    }
}

/// The key of a header's incarnation.
pub(crate) fn epoch_key(root: &RootKey, header: &Header) -> EpochKey {
    root.vm(&header.vm).epoch(header.epoch, &header.salt, header.suite)
}

pub(crate) fn gfn(number: u64) -> Gfn {
    Gfn::new(number).expect("in range")
}

/// The terms on which a page is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) version: u64,
    pub(crate) state: PageState,
    pub(crate) excluded: bool,
}

/// All pages private, each with its own version.
pub(crate) fn private(page: u64) -> Terms {
    Terms { version: page + 1, state: PageState::Private, excluded: false }
}

/// One page of each sort, then private ones.
pub(crate) fn mixed(page: u64) -> Terms {
    let open = |kind, perm, mask| PageState::Open {
        kind: PageKind(kind),
        perm,
        mask: MaskId::new(mask).expect("in range"),
    };
    match page {
        0 => Terms { version: 1, state: PageState::Private, excluded: false },
        1 => Terms { version: 7, state: open(1, Perm::ReadWrite, 0), excluded: false },
        2 => Terms { version: 2, state: PageState::Private, excluded: true },
        3 => {
            Terms { version: Version::MAX.number(), state: open(5, Perm::Read, 63), excluded: true }
        }
        page => private(page),
    }
}

/// What a page holds: the numbers from 2048 times its own on, or zeroes if it is excluded.
pub(crate) fn content(page: u64, terms: Terms) -> Page {
    let mut bytes = Page::zeroed();
    if !terms.excluded {
        for (word, number) in bytes.bytes_mut().as_chunks_mut::<2>().0.iter_mut().zip(2048 * page..)
        {
            *word = (number as u16).to_le_bytes();
        }
    }
    bytes
}

/// What is authenticated with a page of an image.
pub(crate) fn page_id(epoch: Epoch, page: u64, terms: Terms) -> PageId {
    let closed = (PageKind::MEMORY, Perm::Read, MaskId::ALL);
    let (kind, perm, mask) = terms.state.terms().unwrap_or(closed);
    PageId {
        gfn: gfn(page),
        version: Version::new(terms.version).expect("in range"),
        epoch,
        kind,
        perm,
        mask,
        stream: Stream::Image,
        excluded: terms.excluded,
    }
}

/// A whole image.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) root: ImageRoot,
}

pub(crate) fn seal(header: &Header, terms: fn(u64) -> Terms, state: &[u8]) -> Sealed {
    let key = epoch_key(&root_key(), header);
    let cipher = SivCmac512::new(&key.siv(Stream::Image.id()));
    let mut bytes = vec![0; HEADER_SIZE];
    let block = bytes.first_chunk_mut().expect("long enough");
    let mut writer = ImageWriter::new(&key, header, block).expect("within limits");
    let mut records = Vec::new();
    for page in 0..header.pages {
        let id = page_id(header.epoch, page, terms(page));
        let (plain, mut sealed) = (content(page, terms(page)), Page::zeroed());
        let mut jobs = [SealJob::new(id, &plain, &mut sealed)];
        cipher.seal(&mut jobs, Landing::Cold);
        let [job] = jobs;
        let tag = job.tag();
        bytes.extend(sealed.bytes());
        let state = terms(page).state;
        let receipt = Receipt { gfn: id.gfn, state, sealed_as: state, sealed: Some((id, tag)) };
        records.push(writer.record(&receipt).expect("in order"));
    }
    let mut padded = state.to_vec();
    // What is left in a buffer must not matter.
    padded.resize(state.len().next_multiple_of(PAGE_SIZE), 0xee);
    let (trailer, root) = writer.finish(&mut padded).expect("complete");
    bytes.extend(padded);
    bytes.extend(Record::bytes(&records));
    bytes.extend(trailer);
    Sealed { bytes, root }
}

/// An image with two pages and a little state.
pub(crate) fn tiny() -> Sealed {
    seal(&header(2, b"vcpu"), mixed, b"vcpu")
}

/// Everything that an image holds.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) header: Header,
    pub(crate) pages: Vec<(GenuineRecord, Page)>,
    pub(crate) state: Vec<u8>,
    pub(crate) root: ImageRoot,
}

/// A part of an image.
pub(crate) fn part(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
    bytes[range.start as usize..range.end as usize].to_vec()
}

/// The records and the trailer, read once.
pub(crate) fn tables(reader: &ImageReader, bytes: &[u8]) -> (Vec<Record>, [u8; TRAILER_SIZE]) {
    let geometry = reader.geometry();
    let mut records = vec![Record::default(); geometry.pages() as usize];
    Record::bytes_mut(&mut records).copy_from_slice(&part(bytes, &geometry.records()));
    (records, part(bytes, &geometry.trailer()).try_into().expect("its size"))
}

/// The strict reader: nothing comes back unless everything is genuine.
pub(crate) fn restore(
    key: &RootKey,
    bytes: &[u8],
    pinned: Option<ImageRoot>,
) -> Result<Restored, ImageError> {
    let reader = ImageReader::open(key, bytes, Some(bytes.len() as u64))?;
    let (records, trailer) = tables(&reader, bytes);
    let manifest = reader.verify(&records, &trailer, pinned)?;
    let mut state = part(bytes, &reader.geometry().state());
    let state = manifest.open_state(&mut state)?.to_vec();
    let cipher = SivCmac512::new(&reader.page_key());
    let mut pages = Vec::new();
    for record in manifest.records() {
        let (mut sealed, mut plain) = (Page::zeroed(), Page::zeroed());
        let body = reader.geometry().body(record.gfn()).expect("a page of the image");
        sealed.bytes_mut().copy_from_slice(&part(bytes, &body));
        record.open(&cipher, &sealed, &mut plain)?;
        pages.push((record, plain));
    }
    Ok(Restored { header: *reader.header(), pages, state, root: manifest.root() })
}

/// Why an image is refused.
pub(crate) fn refusal(bytes: &[u8]) -> Option<ImageError> {
    restore(&root_key(), bytes, None).err()
}
