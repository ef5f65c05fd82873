//! Headers and records that are authenticated and still say the impossible: refused by name. What
//! is believed is written back as the same bytes, and proves what it says and no more.

use arbitrary::Arbitrary;
use view_core::image::{GenuineRecord, HEADER_SIZE, ImageError, ImageReader, ImageWriter, Record};
use view_core::suite::siv::Siv512;
use view_core::whitelist::{
    EvidenceSource, Expiry, Lease, Leases, Proposal, RestoredImage, RestoredPage, Rule,
};
use view_core::{Epoch, Frames, PageKind, PageState, Perm, Receipt, Slot, Vm, VmConfig, VmNumber};

use super::sealed::{EPOCH, ROOT, epoch_key, gfn, header, mac, manifest};

/// More than one node of a manifest covers.
const RECORDS_MAX: usize = 70;

/// What somebody who has the key writes.
#[derive(Arbitrary, Debug)]
pub struct Input {
    header: Vec<(u16, u8)>,
    lines: Vec<Line>,
}

/// A record.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Line {
    tag: [u8; 16],
    version: u64,
    /// The right one if none is given.
    epoch_low: Option<u32>,
    kind: u8,
    perm: u8,
    mask: u8,
    flags: u8,
}

impl Line {
    fn epoch_low(&self) -> u32 {
        let [a, b, c, d, ..] = EPOCH.0.to_le_bytes();
        self.epoch_low.unwrap_or(u32::from_le_bytes([a, b, c, d]))
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { tag, version, kind, perm, mask, flags, .. } = self;
        let numbers = [&version.to_le_bytes()[..], &self.epoch_low().to_le_bytes()].concat();
        [&tag[..], &numbers, &[*kind, *perm, *mask, *flags]].concat()
    }

    /// Whether spec/sealed-image.md, "Records", has room for it.
    fn is_possible(&self) -> bool {
        let right_epoch = Self { epoch_low: None, ..*self }.epoch_low() == self.epoch_low();
        let closed = (self.kind, self.perm, self.mask) == (0, 1, 0);
        (1..1 << 56).contains(&self.version)
            && right_epoch
            && (self.perm == 1 || self.perm == 3 && self.mask == 0)
            && self.mask < 64
            && self.flags < 4
            && (self.flags & 1 == 1 || closed)
    }
}

/// Reads it.
///
/// # Panics
/// If the impossible is believed, the possible is refused, or what was read is written otherwise.
pub fn check(input: &Input) {
    let lines = &input.lines[..input.lines.len().min(RECORDS_MAX)];
    let count = u64::try_from(lines.len()).unwrap_or(0);
    let block = signed_header(count, &input.header);
    let reader = match ImageReader::open(&ROOT, &block, None) {
        Ok(reader) => reader,
        Err(error) => return assert_eq!(Some(error), impossible(&block)),
    };
    assert_eq!(impossible(&block), None, "an impossible header was believed");
    let stored: Vec<u8> = lines.iter().flat_map(Line::bytes).collect();
    let mut records = vec![Record::default(); lines.len()];
    Record::bytes_mut(&mut records).copy_from_slice(&stored);
    let pages = reader.header().pages;
    let trailer = signed_trailer(&block, pages, &stored);
    let expected = if pages == count {
        let bad = (0..).zip(lines).find(|(_, line)| !line.is_possible());
        bad.map(|(page, _)| ImageError::BadRecord(gfn(page)))
    } else {
        Some(ImageError::WrongBuffer { expected: 32 * pages, found: 32 * count })
    };
    match reader.verify(&records, &trailer, None) {
        Err(error) => assert_eq!(Some(error), expected),
        Ok(manifest) => {
            assert_eq!(expected, None, "an impossible record was believed");
            let read: Vec<GenuineRecord> = manifest.records().collect();
            assert_eq!(written_back(&read, reader.header().state_len), stored);
            read.iter().zip(lines).for_each(|(record, line)| proves(record, line));
        }
    }
}

/// A header with some bytes changed after the commitment, authenticated as it is.
fn signed_header(pages: u64, changes: &[(u16, u8)]) -> [u8; HEADER_SIZE] {
    let (key, mut block) = (epoch_key(), [0; HEADER_SIZE]);
    let _ = ImageWriter::new(&key, &header(pages, 0), &mut block).expect("within limits");
    for (at, byte) in changes {
        let at = usize::from(*at);
        if (13..16).contains(&at) || (96..4080).contains(&at) {
            block[at] = *byte;
        }
    }
    let (head, tag) = block.split_at_mut(4080);
    tag.copy_from_slice(&Siv512::new(key.state().expose()).seal(&[&[0x48], head], &mut []));
    block
}

/// What is impossible about a genuine header.
fn impossible(block: &[u8; HEADER_SIZE]) -> Option<ImageError> {
    let word = |at: usize| block[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let (pages, state) = (word(96), word(104));
    let reserved = (13..16).chain(112..4080).find(|at| block[*at] != 0);
    let too_many = (pages > 1 << 40).then_some(ImageError::TooManyPages(pages));
    let too_long = (state > 1 << 32).then_some(ImageError::StateTooLong(state));
    reserved.map(ImageError::Reserved).or(too_many).or(too_long)
}

fn signed_trailer(block: &[u8; HEADER_SIZE], pages: u64, records: &[u8]) -> [u8; 48] {
    let (state, manifest) = ([7; 16], manifest(records));
    let head = [0x52, 0, 0, 0, 0, 0, 0, 0];
    let root = mac(&[&block[4080..], &state, &manifest, &head, &pages.to_le_bytes()]);
    let mut trailer = [0; 48];
    let parts = [state, manifest, root];
    trailer.chunks_exact_mut(16).zip(parts).for_each(|(to, part)| to.copy_from_slice(&part));
    trailer
}

/// What a writer makes of what a reader read.
fn written_back(records: &[GenuineRecord], state_len: u64) -> Vec<u8> {
    let (key, mut block) = (epoch_key(), [0; HEADER_SIZE]);
    let pages = u64::try_from(records.len()).unwrap_or(0);
    let writer = ImageWriter::new(&key, &header(pages, state_len), &mut block);
    let mut writer = writer.expect("it was read");
    let written = records.iter().map(|record| {
        let (gfn, state) = (record.gfn(), record.state());
        let sealed = Some((record.page_id(), record.tag()));
        writer.record(&Receipt { gfn, state, sealed_as: state, sealed }).expect("it was read")
    });
    Record::bytes(&written.collect::<Vec<_>>()).to_vec()
}

/// A page of a restored image is opened if its record says so, on the record's terms, and only in a
/// VM that has the page.
fn proves(record: &GenuineRecord, line: &Line) {
    let slots = [const { Slot::new() }; 2];
    let leases: [Lease; 0] = [];
    let vm = Vm::new(VmConfig {
        number: VmNumber(1),
        epoch: Epoch(EPOCH.0 + 1),
        pages: 2,
        slots: &slots,
        frames: Frames::new(&[]),
        leases: Leases::new(&leases),
        masks: &[],
        replicas_max: 0,
    });
    let vm = vm.expect("as many rows as pages");
    let open = line.flags & 1 == 1;
    let proposal = match RestoredImage.infer(&vm, &RestoredPage { record: *record }) {
        Ok(proposal) => proposal,
        Err(_) => return assert!(record.gfn().number() >= 2),
    };
    assert!(record.gfn().number() < 2);
    match proposal {
        Proposal::Share { evidence, gfn, perm, mask, expiry } => {
            assert!(open && gfn == record.gfn() && evidence.is_about(&vm, gfn));
            assert_eq!(evidence.source(), EvidenceSource::Image);
            assert_eq!(evidence.kind(), PageKind(line.kind));
            assert_eq!((perm == Perm::ReadWrite, mask.number()), (line.perm == 3, line.mask));
            assert_eq!(expiry, Expiry::Never);
        }
        Proposal::Unshare { gfn } => assert!(!open && gfn == record.gfn()),
        Proposal::Exclude { .. } => panic!("no record says that"),
    }
    assert_eq!(vm.state(record.gfn()), Some(PageState::Free), "to infer changes nothing");
}
