//! Images of a guest as they are kept: written by the shipped cipher and writer, read by the
//! shipped reader.

use view_core::image::{
    GenuineRecord, HEADER_SIZE, Header, ImageError, ImageReader, ImageRoot, ImageWriter, Record,
    TRAILER_SIZE,
};
use view_core::key::{EpochKey, RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, PageCipher, SealJob, Stream, Tag};
use view_core::{Epoch, PAGE_SIZE, Page, VmId};

use super::guest::{Guest, PAGES, Sealed, pages};

const ROOT: RootKey = RootKey::new([0x0a; 32]);
/// Bytes of state, each the same number.
pub(super) const STATE_LEN: usize = 3;
/// Parts of a file that have a name of their own: header, bodies, state, records, trailer.
pub(super) const PARTS: usize = 3 + 2 * PAGES;
/// What the parts are called.
pub(super) const NAMES: [&str; PARTS] =
    ["header", "page 0", "page 1", "state", "record 0", "record 1", "trailer"];
/// Where bodies begin among the parts.
pub(super) const BODIES: usize = 1;
/// Where the state is among the parts.
pub(super) const STATE: usize = BODIES + PAGES;
/// Where records begin among the parts.
pub(super) const RECORDS: usize = STATE + 1;
/// Where the trailer is among the parts.
pub(super) const TRAILER: usize = RECORDS + PAGES;

/// An image as a term: what is sealed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) bodies: [Sealed; PAGES],
    pub(super) cpu: u8,
    pub(super) sequence: u8,
    pub(super) epoch: u64,
}

/// An image in its parts, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) root: ImageRoot,
}

/// What the reader made of an image, all of it genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) header: Header,
    pub(super) cpu: u8,
    /// Each page's record, and the store that it holds.
    pub(super) pages: Vec<(GenuineRecord, u8)>,
}

/// The header of an image with so many pages.
pub(super) const fn header(epoch: u64, sequence: u8, pages: u64) -> Header {
    let [salt, ..] = epoch.to_le_bytes();
    Header {
        vm: VmId([0x1d; 16]),
        epoch: Epoch(epoch),
        salt: Salt([salt; 16]),
        suite: SivCmac512::SUITE,
        sequence: sequence as u64,
        pages,
        state_len: STATE_LEN as u64,
    }
}

/// The key of an epoch.
pub(super) fn key(epoch: u64) -> EpochKey {
    let Header { vm, epoch, salt, suite, .. } = header(epoch, 0, 0);
    ROOT.vm(&vm).epoch(epoch, &salt, suite)
}

/// The shipped reader's beginning: it knows the owner's key.
pub(super) fn reader(bytes: &[u8], length: Option<u64>) -> Result<ImageReader, ImageError> {
    ImageReader::open(&ROOT, bytes, length)
}

/// The bytes of a sealed page, and their tag.
pub(super) fn body(sealed: &Sealed) -> (Box<Page>, Tag) {
    let key = key(sealed.epoch.0).siv(sealed.stream.id());
    let (mut plain, mut page) = (Box::new(Page::zeroed()), Box::new(Page::zeroed()));
    plain.bytes_mut().fill(sealed.inner);
    let mut jobs = [SealJob::new(sealed.id(), &plain, &mut page)];
    SivCmac512::new(&key).seal(&mut jobs, Landing::Hot);
    let [job] = &jobs;
    let tag = job.tag();
    (page, tag)
}

impl Kept {
    /// Everything that a guest holds, sealed for an image.
    pub(super) fn of(guest: &mut Guest, sequence: u8) -> Self {
        let sealed = |page| guest.export(page, Stream::Image).expect("a page that is there");
        let bodies = [0, 1].map(sealed);
        Self { bodies, cpu: guest.cpu, sequence, epoch: guest.epoch() }
    }

    /// The image itself.
    pub(super) fn image(&self) -> Image {
        let (key, mut block) = (key(self.epoch), [0; HEADER_SIZE]);
        let header = header(self.epoch, self.sequence, PAGES as u64);
        let mut writer = ImageWriter::new(&key, &header, &mut block).expect("within limits");
        let mut parts = vec![block.to_vec()];
        let sealed: Vec<_> = self.bodies.iter().map(|sealed| (sealed, body(sealed))).collect();
        parts.extend(sealed.iter().map(|(_, (page, _))| page.bytes().to_vec()));
        let record =
            |(sealed, (_, tag)): &(&Sealed, (_, Tag))| writer.record(&sealed.receipt(*tag));
        let records: Result<Vec<Record>, ImageError> = sealed.iter().map(record).collect();
        let mut state = vec![self.cpu; PAGE_SIZE];
        let (trailer, root) = writer.finish(&mut state).expect("every page was recorded");
        parts.push(state);
        let records = records.expect("sealed for this image, in order");
        parts.extend(records.iter().map(|record| Record::bytes(&[*record]).to_vec()));
        parts.push(trailer.to_vec());
        Image { parts, root }
    }
}

impl Image {
    /// The whole file.
    pub(super) fn file(&self) -> Vec<u8> {
        self.parts.concat()
    }

    /// The records, one after the other.
    pub(super) fn records(&self) -> Vec<u8> {
        self.parts[RECORDS..TRAILER].concat()
    }
}

/// The tag at the end of a header.
pub(super) fn header_tag(header: &[u8]) -> &[u8] {
    &header[HEADER_SIZE - 16..HEADER_SIZE]
}

/// Records as the reader takes them.
pub(super) fn records(bytes: &[u8]) -> Vec<Record> {
    let mut records = vec![Record::default(); bytes.len() / 32];
    Record::bytes_mut(&mut records).copy_from_slice(bytes);
    records
}

/// What a genuine manifest says of each page; `None` if this reader refuses it.
pub(super) fn manifest(
    header: &[u8],
    records: &[u8],
    trailer: &[u8],
    pinned: ImageRoot,
) -> Option<Vec<GenuineRecord>> {
    let (reader, records) = (reader(header, None).ok()?, self::records(records));
    let manifest = reader.verify(&records, trailer.try_into().ok()?, Some(pinned)).ok()?;
    Some(manifest.records().collect())
}

/// Reads a file as a restore does: everything is verified, and what is not genuine is not opened.
pub(super) fn read(file: &[u8], pinned: Option<ImageRoot>) -> Result<Opened, ImageError> {
    let reader = reader(file, u64::try_from(file.len()).ok())?;
    let places = *reader.geometry();
    let part = |range: std::ops::Range<u64>| -> &[u8] {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        file.get(place(range.start)..place(range.end)).expect("its length was checked")
    };
    let records = records(part(places.records()));
    let trailer: &[u8; TRAILER_SIZE] = part(places.trailer()).try_into().expect("as long as that");
    let manifest = reader.verify(&records, trailer, pinned)?;
    let mut state = part(places.state()).to_vec();
    let cpu = alike(manifest.open_state(&mut state)?);
    let cipher = SivCmac512::new(&reader.page_key());
    let open = |record: GenuineRecord| {
        let (mut sealed, mut plain) = (Box::new(Page::zeroed()), Box::new(Page::zeroed()));
        let body = places.body(record.gfn()).expect("a page of the image");
        sealed.bytes_mut().copy_from_slice(part(body));
        record.open(&cipher, &sealed, &mut plain)?;
        Ok((record, alike(plain.bytes())))
    };
    let pages = manifest.records().map(open).collect::<Result<_, ImageError>>()?;
    Ok(Opened { header: *reader.header(), cpu, pages })
}

/// The byte that all of these are. No page or state was ever anything else.
pub(super) fn alike(bytes: &[u8]) -> u8 {
    let first = bytes.first().copied().unwrap_or_default();
    assert!(bytes.iter().all(|byte| *byte == first), "genuine, and never sealed");
    first
}

/// Two images of one guest and one epoch, and one of the epoch that follows its restore.
pub(super) fn three() -> [Kept; 3] {
    let mut guest = Guest::building(1);
    guest.launch();
    guest.store(0);
    assert!(guest.share(1, 3, 0), "a private page can be opened");
    let older = Kept::of(&mut guest, 1);
    pages().for_each(|page| guest.store(page));
    let newest = Kept::of(&mut guest, 2);
    let mut restored = Guest::building(2);
    (restored.memory, restored.cpu) = (guest.memory, guest.cpu);
    restored.launch();
    restored.store(1);
    [older, newest, Kept::of(&mut restored, 3)]
}
