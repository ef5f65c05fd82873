//! Whatever a keeper of an image makes of it: refused with the name of the first part that is
//! wrong, and nothing of that part is kept; or it is the image as it was.

use arbitrary::Arbitrary;
use view_core::image::{
    HEADER_SIZE, ImageError, ImageReader, Record, TRAILER_SIZE, UnverifiedHeader,
};
use view_core::key::RootKey;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::{PAGE_SIZE, Page};

use super::sealed::{ROOT, content, gfn, image};

/// What the keeper has and does.
#[derive(Arbitrary, Debug)]
pub enum Input {
    /// Bytes of its own making.
    Raw(Vec<u8>),
    /// A genuine image, damaged.
    Damaged {
        /// How many pages it has, less a multiple of four.
        pages: u8,
        /// How many bytes of state, less a multiple of 4100.
        state: u16,
        /// Bytes that are changed, by exclusive or.
        flips: Vec<(u32, u8)>,
        /// A run of bytes that takes the place of another: from, to, length.
        moved: Option<(u16, u16, u16)>,
        /// Where it is cut off.
        cut: Option<u32>,
        /// What is appended.
        more: Vec<u8>,
        /// Whether it is read with the wrong key.
        wrong_key: bool,
    },
}

/// Reads it.
///
/// # Panics
/// If something is believed that is not genuine, or refused for another reason than the first.
pub fn check(input: &Input) {
    match input {
        Input::Raw(bytes) => raw(bytes),
        Input::Damaged { pages, state, flips, moved, cut, more, wrong_key } => {
            let genuine = image(u64::from(pages % 4), u64::from(state % 4100));
            let mut bytes = genuine.clone();
            flips.iter().for_each(|(at, bits)| {
                let at = usize::try_from(*at).unwrap_or(0) % bytes.len();
                bytes[at] ^= bits;
            });
            if let Some((from, to, length)) = moved {
                let [from, to, length] = [from, to, length].map(|word| usize::from(*word));
                // Within what follows the header, which says where everything is.
                let room = bytes.len() - HEADER_SIZE;
                let (from, to) = (HEADER_SIZE + from % room, HEADER_SIZE + to % room);
                let end = bytes.len().min(from + length).min(from + bytes.len() - to);
                bytes.copy_within(from..end, to);
            }
            bytes.truncate(cut.map_or(usize::MAX, |cut| usize::try_from(cut).unwrap_or(0)));
            bytes.extend(more);
            let expected = expected(&genuine, &bytes, u64::from(pages % 4), *wrong_key);
            let key = if *wrong_key { RootKey::new([0x0b; 32]) } else { ROOT };
            assert_eq!(read(&key, &bytes).err(), expected, "{input:?}");
        }
    }
}

/// No key, no image: the parser of what nobody has signed.
fn raw(bytes: &[u8]) {
    let word = |at: usize| -> u64 {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        u64::from_le_bytes(word.unwrap_or_default())
    };
    let looks = bytes.len() >= HEADER_SIZE && bytes.starts_with(b"PAGEVEIL\x01\0\0\0\x01");
    let parsed = UnverifiedHeader::parse(bytes);
    assert_eq!(parsed.is_ok(), looks);
    if let Ok(UnverifiedHeader { claims, commitment }) = parsed {
        let told = [claims.epoch.0, claims.sequence, claims.pages, claims.state_len];
        assert_eq!(told, [32, 40, 96, 104].map(word));
        assert_eq!(Some(&claims.vm.0[..]), bytes.get(16..32));
        assert_eq!(Some(&claims.salt.0[..]), bytes.get(48..64));
        assert_eq!(Some(&commitment[..]), bytes.get(64..96));
        if let Ok(places) = claims.geometry() {
            assert!(places.check(places.bytes()).is_ok());
            assert_eq!(places.body(gfn(claims.pages)), None);
        }
    }
    assert!(read(&ROOT, bytes).is_err(), "an image that nobody sealed");
}

/// The first thing that is wrong, by looking at which bytes differ (spec/sealed-image.md).
fn expected(genuine: &[u8], bytes: &[u8], pages: u64, wrong_key: bool) -> Option<ImageError> {
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let differs = |from: usize, to: usize| genuine.get(from..to) != bytes.get(from..to);
    let begins = bytes.iter().zip(b"PAGEVEIL").all(|(byte, magic)| byte == magic);
    if !begins {
        return Some(ImageError::NotAnImage);
    }
    if bytes.len() < HEADER_SIZE {
        return Some(ImageError::Truncated { expected: 4096, found });
    }
    if differs(8, 12) {
        let format = bytes[8..12].try_into().map_or(0, u32::from_le_bytes);
        return Some(ImageError::UnknownFormat(format));
    }
    if differs(12, 13) {
        return Some(ImageError::UnknownSuite(bytes[12]));
    }
    if wrong_key || differs(16, 40) || differs(48, 96) {
        return Some(ImageError::WrongKey);
    }
    if differs(13, HEADER_SIZE) {
        return Some(ImageError::HeaderForged);
    }
    let expected = u64::try_from(genuine.len()).unwrap_or(u64::MAX);
    if found < expected {
        return Some(ImageError::Truncated { expected, found });
    }
    if found > expected {
        return Some(ImageError::TooLong { expected, found });
    }
    let count = usize::try_from(pages).unwrap_or(0);
    let trailer = genuine.len() - TRAILER_SIZE;
    let (records, state) = (trailer - 32 * count, HEADER_SIZE + PAGE_SIZE * count);
    let parts = [
        (trailer, genuine.len(), ImageError::TrailerForged),
        (records, trailer, ImageError::RecordsForged),
        (state, records, ImageError::StateForged),
    ];
    let wrong = parts.into_iter().find(|(from, to, _)| differs(*from, *to));
    wrong.map(|(_, _, error)| error).or_else(|| {
        let body = |page: usize| HEADER_SIZE + PAGE_SIZE * page;
        let page = (0..count).find(|page| differs(body(*page), body(page + 1)))?;
        Some(ImageError::PageForged(gfn(u64::try_from(page).unwrap_or(0))))
    })
}

/// The strict reader: everything must be genuine, and what is not is wiped.
fn read(key: &RootKey, bytes: &[u8]) -> Result<(), ImageError> {
    let reader = ImageReader::open(key, bytes, u64::try_from(bytes.len()).ok())?;
    let places = *reader.geometry();
    let part = |range: std::ops::Range<u64>| -> &[u8] {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        bytes.get(place(range.start)..place(range.end)).expect("its length was checked")
    };
    let mut records = vec![Record::default(); part(places.records()).len() / 32];
    Record::bytes_mut(&mut records).copy_from_slice(part(places.records()));
    let trailer = part(places.trailer()).try_into().expect("its length was checked");
    let manifest = reader.verify(&records, trailer, None)?;
    let mut state = part(places.state()).to_vec();
    match manifest.open_state(&mut state) {
        Ok(opened) => assert!(opened.iter().all(|byte| *byte == 1)),
        Err(error) => {
            assert!(state.iter().all(|byte| *byte == 0), "a forged state was kept");
            return Err(error);
        }
    }
    let cipher = SivCmac512::new(&reader.page_key());
    for record in manifest.records() {
        let (mut sealed, mut plain) = (Box::new(Page::zeroed()), Box::new(Page::zeroed()));
        plain.bytes_mut().fill(0xee);
        let body = places.body(record.gfn()).expect("a page of the image");
        sealed.bytes_mut().copy_from_slice(part(body));
        if let Err(error) = record.open(&cipher, &sealed, &mut plain) {
            assert!(plain.bytes().iter().all(|byte| *byte == 0), "a forged page was kept");
            return Err(error);
        }
        assert_eq!(plain.bytes(), content(record.gfn().number()).bytes());
    }
    Ok(())
}
