//! Readers that believe too much.
//!
//! Where such a reader sees no difference to what its owner signed, the owner's key signs what is
//! there, and the shipped reader goes on from there: so a machine is wrong in one place, and runs
//! the real code everywhere else.

use view_core::image::{ImageError, ImageRoot};

use super::kept::{self, Image, Opened, PARTS, RECORDS, STATE, TRAILER, header_tag};
use super::signed::{self, Fold};

/// What is wrong with a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fooled {
    /// The image root does not say of which header it is.
    RootWithoutHeader,
    /// The manifest leaves versions and tags out.
    RecordsWithoutVersion,
    /// Nothing says of which image a state is.
    AnyState,
    /// A root that was never written, or not whole, is taken for the right one.
    TornRoot,
}

/// Reads a file in parts as a reader does that is fooled so, or the shipped one.
pub(super) fn read(
    fooled: Option<Fooled>,
    images: &[Image],
    parts: &[&[u8]],
    pinned: Option<ImageRoot>,
) -> Result<Opened, ImageError> {
    let Some(signed) = fooled.and_then(|fooled| signed(fooled, images, parts)) else {
        return kept::read(&parts.concat(), pinned);
    };
    let named = &parts[TRAILER][32..];
    if fooled != Some(Fooled::TornRoot) && pinned.is_some_and(|root| root.0 != *named) {
        return Err(ImageError::NotPinned);
    }
    kept::read(&signed, None)
}

/// The file, signed anew; `None` if this reader too sees that it is not what was signed.
fn signed(fooled: Fooled, images: &[Image], parts: &[&[u8]]) -> Option<Vec<u8>> {
    let whole = images.first()?.parts.iter().map(Vec::len);
    if parts.len() != PARTS || !parts.iter().map(|part| part.len()).eq(whole) {
        return None;
    }
    let key = kept::key(kept::reader(parts[0], None).ok()?.header().epoch.0);
    let (tag, trailer) = (header_tag(parts[0]), parts[TRAILER]);
    let records = parts[RECORDS..TRAILER].concat();
    let (mut state, mut state_tag) = (parts[STATE].to_vec(), trailer[..16].to_vec());
    let image = images.iter().find(|image| image.parts[TRAILER] == trailer);
    let same_header = image.is_some_and(|image| image.parts[0] == parts[0]);
    let believed = match fooled {
        Fooled::RootWithoutHeader => image.is_some_and(|image| image.records() == records),
        Fooled::RecordsWithoutVersion => {
            same_header && image.is_some_and(|image| terms(&image.records()) == terms(&records))
        }
        Fooled::AnyState => {
            let theirs = images.iter().find(|image| image.parts[STATE] == state)?;
            let cpu = kept::read(&theirs.file(), None).ok()?.cpu;
            (state, state_tag) = signed::state(&key, tag, cpu);
            same_header && image.is_some_and(|image| image.records() == records)
        }
        Fooled::TornRoot => image.is_none(),
    };
    let manifest = signed::manifest(&key.manifest(), Fold::Sound, &records);
    let pages = u64::try_from(TRAILER - RECORDS).ok()?;
    let trailer = signed::trailer(&key.manifest(), pages, tag, &state_tag, manifest);
    let before = parts[..STATE].concat();
    believed.then(|| [&before, &state, &records, &trailer[..]].concat())
}

/// What records say beside versions and tags.
fn terms(records: &[u8]) -> Vec<&[u8]> {
    records.chunks(32).map(|record| &record[24..]).collect()
}
