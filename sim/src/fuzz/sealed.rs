//! Images to be damaged, and the owner's own tools to authenticate what nobody should write.

use aes::Aes256Enc;
use cmac::{Cmac, KeyInit, Mac};
use view_core::image::{HEADER_SIZE, Header, ImageWriter, Record};
use view_core::key::{EpochKey, RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, PageCipher, PageId, SealJob, Stream};
use view_core::{
    Epoch, Gfn, MaskId, PAGE_SIZE, Page, PageKind, PageState, Perm, Receipt, Version, VmId,
};

/// The owner's key.
pub(super) const ROOT: RootKey = RootKey::new([0x0a; 32]);
/// Whose image it is, in which epoch.
pub(super) const EPOCH: Epoch = Epoch(0x0102_0304_0506_0708);

/// A header of an image with so many pages and so much state.
pub(super) const fn header(pages: u64, state_len: u64) -> Header {
    Header {
        vm: VmId([0x1d; 16]),
        epoch: EPOCH,
        salt: Salt([0x5a; 16]),
        suite: SivCmac512::SUITE,
        sequence: 3,
        pages,
        state_len,
    }
}

/// The key of that epoch.
pub(super) fn epoch_key() -> EpochKey {
    let Header { vm, epoch, salt, suite, .. } = header(0, 0);
    ROOT.vm(&vm).epoch(epoch, &salt, suite)
}

/// A page's number; no test has more than fit.
pub(super) fn gfn(number: u64) -> Gfn {
    Gfn::new(number).unwrap_or(Gfn::MAX)
}

/// What a page is: every fourth open, the others closed.
fn state(page: u64) -> PageState {
    if page % 4 == 1 {
        PageState::Open { kind: PageKind::MAILBOX, perm: Perm::ReadWrite, mask: MaskId::ALL }
    } else {
        PageState::Private
    }
}

/// What a page holds.
pub(super) fn content(page: u64) -> Box<Page> {
    let mut content = Box::new(Page::zeroed());
    let [low, high, ..] = page.wrapping_mul(0x9e37).to_le_bytes();
    content.bytes_mut().chunks_exact_mut(2).for_each(|two| two.copy_from_slice(&[low, !high]));
    content
}

/// A genuine image: header, bodies, state of ones, records, trailer.
pub(super) fn image(pages: u64, state_len: u64) -> Vec<u8> {
    let (key, header) = (epoch_key(), header(pages, state_len));
    let cipher = SivCmac512::new(&key.siv(Stream::Image.id()));
    let mut block = [0; HEADER_SIZE];
    let mut writer = ImageWriter::new(&key, &header, &mut block).expect("within limits");
    let mut bytes = block.to_vec();
    let mut records = Vec::new();
    for page in 0..pages {
        let state = state(page);
        let (kind, perm, mask) =
            state.terms().unwrap_or((PageKind::MEMORY, Perm::Read, MaskId::ALL));
        let version = Version::new(page + 1).expect("small");
        let (stream, excluded) = (Stream::Image, false);
        let gfn = gfn(page);
        let id = PageId { gfn, version, epoch: EPOCH, kind, perm, mask, stream, excluded };
        let (plain, mut body) = (content(page), Box::new(Page::zeroed()));
        let mut jobs = [SealJob::new(id, &plain, &mut body)];
        cipher.seal(&mut jobs, Landing::Hot);
        let sealed = jobs.map(|job| job.tag()).first().map(|tag| (id, *tag));
        bytes.extend(body.bytes());
        let receipt = Receipt { gfn, state, sealed_as: state, sealed };
        records.push(writer.record(&receipt).expect("in order"));
    }
    let length = usize::try_from(state_len).expect("short");
    let mut state = vec![1; length];
    state.resize(length.next_multiple_of(PAGE_SIZE), 0);
    let (trailer, _) = writer.finish(&mut state).expect("complete");
    bytes.extend(state);
    bytes.extend(Record::bytes(&records));
    bytes.extend(trailer);
    bytes
}

/// A CMAC under the key of manifests.
pub(super) fn mac(parts: &[&[u8]]) -> [u8; 16] {
    let key = epoch_key().manifest();
    let mut mac = Cmac::<Aes256Enc>::new(key.expose().into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().0
}

/// The manifest over some records, level by level as spec/sealed-image.md has it.
pub(super) fn manifest(records: &[u8]) -> [u8; 16] {
    let mut nodes: Vec<Vec<u8>> = records.chunks(32).map(<[u8]>::to_vec).collect();
    let mut level = 0;
    while level == 0 && !nodes.is_empty() || nodes.len() > 1 {
        let node = |(index, below): (u64, &[Vec<u8>])| {
            let count = u8::try_from(below.len()).unwrap_or(u8::MAX);
            let head = [0x4d, level, count, 0, 0, 0, 0, 0];
            mac(&[&below.concat(), &head, &index.to_le_bytes()]).to_vec()
        };
        nodes = (0..).zip(nodes.chunks(64)).map(node).collect();
        level += 1;
    }
    nodes.first().and_then(|root| root.as_slice().try_into().ok()).unwrap_or([0; 16])
}
