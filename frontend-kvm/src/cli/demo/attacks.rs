//! Images that a keeper without the key can make from genuine ones.

use view_core::image::UnverifiedHeader;
use view_core::{Gfn, PAGE_SIZE};

use crate::output::Failed;

/// Bytes of a record.
const RECORD: usize = 32;
/// Whose page is attacked: one that holds a secret, and its neighbour.
const VICTIM: u64 = frontend_kvm::abi::gfn::SECRET;

/// Three forged images: a flipped bit, two pages swapped, and a page from an older image of the
/// same guest, each with its record.
pub(super) fn all(older: &[u8], newer: &[u8]) -> Result<Vec<(&'static str, Vec<u8>)>, Failed> {
    let (body, record) = places(newer, VICTIM)?;
    let (next_body, next_record) = places(newer, VICTIM + 1)?;
    let mut flipped = newer.to_vec();
    if let Some(byte) = flipped.get_mut(body + 77) {
        *byte ^= 1;
    }
    let mut swapped = newer.to_vec();
    copy(&mut swapped, body, newer, next_body, PAGE_SIZE)?;
    copy(&mut swapped, next_body, newer, body, PAGE_SIZE)?;
    copy(&mut swapped, record, newer, next_record, RECORD)?;
    copy(&mut swapped, next_record, newer, record, RECORD)?;
    let mut replayed = newer.to_vec();
    let (old_body, old_record) = places(older, VICTIM)?;
    copy(&mut replayed, body, older, old_body, PAGE_SIZE)?;
    copy(&mut replayed, record, older, old_record, RECORD)?;
    Ok(vec![
        ("One bit of a page flipped", flipped),
        ("Two pages swapped, records and all", swapped),
        ("One page replaced by an older one of the same guest", replayed),
    ])
}

/// Where a page's body and record are.
fn places(image: &[u8], number: u64) -> Result<(usize, usize), Failed> {
    let header = UnverifiedHeader::parse(image)?.claims;
    let geometry = header.geometry()?;
    let body = geometry.body(Gfn::new(number)?).ok_or(Failed::new("no such page"))?.start;
    let record = geometry.records().start + number * RECORD as u64;
    Ok((usize::try_from(body)?, usize::try_from(record)?))
}

fn copy(
    to: &mut [u8],
    at: usize,
    from: &[u8],
    from_at: usize,
    length: usize,
) -> Result<(), Failed> {
    let target = to.get_mut(at..at + length);
    match (target, from.get(from_at..from_at + length)) {
        (Some(target), Some(source)) => {
            target.copy_from_slice(source);
            Ok(())
        }
        _ => Err(Failed::new("the image is shorter than it says")),
    }
}
