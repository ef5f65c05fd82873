//! The shipped keys, suite and images at work: what is looked for here are bytes, not terms.

use std::collections::BTreeSet;
use std::fmt::Write;

use view_core::image::{HEADER_SIZE, Header, ImageReader, ImageWriter, Record};
use view_core::key::{EpochKey, RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Stream, Tag};
use view_core::{Epoch, Gfn, MaskId, Page, PageKind, PageState, Perm, Receipt, Version, VmId};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The owner's key: no two of its bytes are alike, nor like any that is sealed here.
pub(super) const ROOT: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut at = 0_u8;
    while at < 32 {
        bytes[at as usize] = at.wrapping_mul(7) ^ 0xa5;
        at += 1;
    }
    bytes
};

/// A VM from a start to its end. Only its number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Incarnation {
    pub(super) number: u8,
    pub(super) vm: u8,
    pub(super) epoch: u8,
    pub(super) salt: u8,
}

/// A sealed page or an image of one, as the management side keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) by: Incarnation,
    pub(super) stream: Stream,
    pub(super) version: u8,
    pub(super) content: u8,
}

impl Incarnation {
    /// What its keys are derived from, none of it secret.
    fn header(self) -> Header {
        Header {
            vm: VmId([0x40 | self.vm; 16]),
            epoch: Epoch(self.epoch.into()),
            salt: Salt([0x60 | self.salt; 16]),
            suite: SivCmac512::SUITE,
            sequence: 1,
            pages: 1,
            state_len: 0,
        }
    }

    /// The key from which all others of it hang.
    pub(super) fn key(self, root: &RootKey) -> EpochKey {
        let Header { vm, epoch, salt, suite, .. } = self.header();
        root.vm(&vm).epoch(epoch, &salt, suite)
    }
}

impl Kept {
    pub(super) fn id(&self) -> PageId {
        PageId {
            gfn: Gfn::new(0).expect("small"),
            version: Version::new(self.version.into()).expect("small"),
            epoch: Epoch(self.by.epoch.into()),
            kind: PageKind::MEMORY,
            perm: Perm::Read,
            mask: MaskId::ALL,
            stream: self.stream,
            excluded: false,
        }
    }

    /// The sealed page and its tag.
    pub(super) fn page(&self, key: &EpochKey) -> (Box<Page>, Tag) {
        let (mut plain, mut sealed) = (Box::new(Page::zeroed()), Box::new(Page::zeroed()));
        plain.bytes_mut().fill(self.content);
        let mut jobs = [SealJob::new(self.id(), &plain, &mut sealed)];
        SivCmac512::new(&key.siv(self.stream.id())).seal(&mut jobs, Landing::Hot);
        let [tag] = jobs.map(|job| job.tag());
        (sealed, tag)
    }

    /// Everything that the management side is given with it.
    pub(super) fn bytes(&self, key: &EpochKey) -> Vec<u8> {
        let (page, tag) = self.page(key);
        match self.stream {
            Stream::View | Stream::Resident => [page.bytes(), tag.as_slice()].concat(),
            Stream::Image => self.image(key, &page, tag),
        }
    }

    fn image(&self, key: &EpochKey, page: &Page, tag: Tag) -> Vec<u8> {
        let mut block = [0; HEADER_SIZE];
        let mut writer =
            ImageWriter::new(key, &self.by.header(), &mut block).expect("within limits");
        let id = self.id();
        let (state, sealed) = (PageState::Private, Some((id, tag)));
        let receipt = Receipt { gfn: id.gfn, state, sealed_as: state, sealed };
        let records = [writer.record(&receipt).expect("the only page")];
        let (trailer, _) = writer.finish(&mut []).expect("complete");
        let parts = [&block[..], page.bytes(), Record::bytes(&records), &trailer];
        parts.concat()
    }

    /// Whether the page opens as a resident one under this key, with everything but the stream
    /// taken from the management side's word.
    pub(super) fn opens(&self, sealed_by: &EpochKey, key: &EpochKey) -> bool {
        let (sealed, tag) = self.page(sealed_by);
        let mut plain = Box::new(Page::zeroed());
        let id = PageId { stream: Stream::Resident, ..self.id() };
        let mut jobs = [OpenJob::new(id, &sealed, tag, &mut plain)];
        SivCmac512::new(&key.siv(Stream::Resident.id())).open(&mut jobs, Landing::Hot);
        jobs.iter().all(OpenJob::genuine)
    }
}

/// Whether whoever has this root key can restore an image: its header, and its page.
pub(super) fn restores(root: &RootKey, image: &[u8]) -> bool {
    let Ok(reader) = ImageReader::open(root, image, u64::try_from(image.len()).ok()) else {
        return false;
    };
    let part = |range: std::ops::Range<u64>| {
        let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        &image[at(range.start)..at(range.end)]
    };
    let mut records = [Record::default()];
    Record::bytes_mut(&mut records).copy_from_slice(part(reader.geometry().records()));
    let trailer = part(reader.geometry().trailer()).try_into().expect("its length was checked");
    let Ok(manifest) = reader.verify(&records, trailer, None) else { return false };
    let cipher = SivCmac512::new(&reader.page_key());
    manifest.records().all(|record| {
        let (mut sealed, mut plain) = (Box::new(Page::zeroed()), Box::new(Page::zeroed()));
        let body = reader.geometry().body(record.gfn()).expect("a page of the image");
        sealed.bytes_mut().copy_from_slice(part(body));
        record.open(&cipher, &sealed, &mut plain).is_ok()
    })
}

/// What is left of a key where it was. The bounds say that the same happens when one is dropped.
pub(super) fn wiped<K: Zeroize + ZeroizeOnDrop>(mut key: K) -> K {
    key.zeroize();
    key
}

/// What the trusted side logs of an incarnation: whatever can be printed.
pub(super) fn log(root: &RootKey, of: Incarnation) -> String {
    let header = of.header();
    let key = of.key(root);
    let mut block = [0; HEADER_SIZE];
    let writer = ImageWriter::new(&key, &header, &mut block).expect("within limits");
    let reader = ImageReader::open(root, &block, None);
    let mut log = format!("{root:?} {:?} {key:?} {header:?} {writer:?}", root.vm(&header.vm));
    for stream in [Stream::View, Stream::Resident, Stream::Image].map(Stream::id) {
        let (siv, gcm, aegis) = (key.siv(stream), key.gcm(stream), key.aegis(stream));
        let cipher = SivCmac512::new(&siv);
        let _ = write!(log, " {siv:?} {gcm:?} {aegis:?} {cipher:?}");
    }
    let _ = write!(log, " {:?} {:?} {reader:?}", key.manifest(), key.state());
    log
}

/// Every key that there ever was, in pieces of 16 bytes: a piece gives as much away as a whole.
#[derive(Debug)]
pub(super) struct Secrets {
    pieces: BTreeSet<[u8; 16]>,
    /// How pieces begin: few places in a page have to be looked at twice.
    heads: Vec<bool>,
}

impl Secrets {
    /// The owner's key, and all that hang from it.
    pub(super) fn of(incarnations: &[Incarnation]) -> Self {
        let root = RootKey::new(ROOT);
        let mut keys = vec![ROOT.to_vec()];
        for incarnation in incarnations {
            let key = incarnation.key(&root);
            keys.push(root.vm(&incarnation.header().vm).expose().to_vec());
            keys.push(key.expose().to_vec());
            keys.extend([key.manifest().expose().to_vec(), key.state().expose().to_vec()]);
            for stream in [Stream::View, Stream::Resident, Stream::Image].map(Stream::id) {
                let keys_of_stream = [
                    key.siv(stream).expose().to_vec(),
                    key.gcm(stream).expose().to_vec(),
                    key.aegis(stream).expose().to_vec(),
                ];
                keys.extend(keys_of_stream);
            }
        }
        let pieces: BTreeSet<[u8; 16]> =
            keys.iter().flat_map(|key| key.as_chunks().0).copied().collect();
        let mut heads = vec![false; 1 << 16];
        pieces.iter().for_each(|[one, two, ..]| heads[head(*one, *two)] = true);
        Self { pieces, heads }
    }

    /// Whether some bytes hold one, as it is or spelled out.
    pub(super) fn are_in(&self, bytes: &[u8]) -> bool {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        self.are_raw_in(bytes) || spelled(text).iter().any(|bytes| self.are_raw_in(bytes))
    }

    fn are_raw_in(&self, bytes: &[u8]) -> bool {
        bytes.windows(16).any(|window| {
            self.heads[head(window[0], window[1])]
                && <[u8; 16]>::try_from(window).is_ok_and(|window| self.pieces.contains(&window))
        })
    }
}

fn head(one: u8, two: u8) -> usize {
    usize::from(u16::from_le_bytes([one, two]))
}

/// The bytes that a text may mean: its numbers, and each long word as hexadecimal digits.
fn spelled(text: &str) -> Vec<Vec<u8>> {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit());
    let numbers = numbers.filter_map(|number| number.parse().ok()).collect();
    let words = text.split(|letter: char| !letter.is_ascii_hexdigit());
    let long = words.filter(|word| word.len() >= 32);
    let digits = long.flat_map(|word| [word, &word[1..]]).map(|word| {
        let pairs = word.as_bytes().as_chunks::<2>().0.iter();
        pairs.filter_map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
    });
    std::iter::once(numbers).chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Incarnation = Incarnation { number: 0, vm: 0, epoch: 1, salt: 0 };

    #[test]
    fn a_key_is_found_wherever_it_is_and_however_it_is_written() {
        let secrets = Secrets::of(&[FIRST]);
        let key = FIRST.key(&RootKey::new(ROOT));
        let state = key.state();
        let half = &state.expose()[16..32];
        for at in [0, 1, 4080, 5000] {
            let mut bytes = vec![0; 6000];
            assert!(!secrets.are_in(&bytes));
            bytes[at..at + 16].copy_from_slice(half);
            assert!(secrets.are_in(&bytes), "at {at}");
        }
        let digits: String = half.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(secrets.are_in(format!("key {digits}!").as_bytes()));
        assert!(secrets.are_in(format!("{:?}", key.expose()).as_bytes()));
    }

    #[test]
    fn pages_open_under_their_own_key_and_images_under_their_owners() {
        let root = RootKey::new(ROOT);
        let page = Kept { by: FIRST, stream: Stream::Resident, version: 1, content: 1 };
        let key = FIRST.key(&root);
        let salted = Incarnation { salt: 1, ..FIRST }.key(&root);
        assert!(page.opens(&key, &key) && !page.opens(&key, &salted));
        let image = Kept { stream: Stream::Image, ..page };
        assert!(!image.opens(&key, &key), "an image's page is no resident one");
        assert!(restores(&root, &image.bytes(&key)));
        assert!(!restores(&wiped(root), &image.bytes(&key)));
    }
}
