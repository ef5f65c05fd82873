//! Small things that are parsed or put together: associated data, names of images, root keys,
//! traces, field masks. What parses is written back as it was; two things are never one string.

use arbitrary::Arbitrary;
use view_core::image::ImageRoot;
use view_core::key::RootKey;
use view_core::suite::{PageId, Stream, SuiteId};
use view_core::{Epoch, Field, Gfn, Mask, MaskId, Page, PageKind, Perm, Version};

use crate::trace::Trace;

/// One of them.
#[derive(Arbitrary, Debug)]
pub enum Input {
    /// What is authenticated with two pages.
    Ids(Id, Id, u8),
    /// What should be an image's name.
    Root(String),
    /// A name's bytes.
    RootBytes([u8; 16]),
    /// What should be a root key.
    Key(Vec<u8>),
    /// What should be a trace.
    Trace(String),
    /// Fields of a page, wherever.
    Mask(Vec<(u16, u16)>),
}

/// Words that an id is made of.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Id {
    gfn: u64,
    version: u64,
    epoch: u64,
    kind: u8,
    writable: bool,
    mask: u8,
    stream: u8,
    excluded: bool,
}

impl Id {
    /// The same nearer to what there is: half of all words would be far out of range.
    const fn near(self) -> Self {
        Self {
            gfn: self.gfn & ((2 << Gfn::BITS) - 1),
            version: self.version & ((2 << Version::BITS) - 1),
            mask: self.mask % (MaskId::COUNT + 1),
            stream: self.stream % 4,
            ..self
        }
    }

    /// The id that these words make.
    fn id(self) -> Option<PageId> {
        Some(PageId {
            gfn: Gfn::new(self.gfn).ok()?,
            version: Version::new(self.version).ok()?,
            epoch: Epoch(self.epoch),
            kind: PageKind(self.kind),
            perm: if self.writable { Perm::ReadWrite } else { Perm::Read },
            mask: MaskId::new(self.mask)?,
            stream: match self.stream {
                1 => Stream::View,
                2 => Stream::Resident,
                3 => Stream::Image,
                _ => return None,
            },
            excluded: self.excluded,
        })
    }
}

/// Parses it.
///
/// # Panics
/// If something is lost on the way in or out.
pub fn check(input: &Input) {
    match input {
        Input::Ids(one, other, suite) => {
            let (one, other) = (one.near(), other.near());
            assert_eq!(one.id().is_some(), is_in_range(one));
            let (Some(a), Some(b)) = (one.id(), other.id()) else { return };
            let suite = SuiteId(*suite);
            as_specified(one, &a.associated_data(suite), suite);
            assert_eq!(a == b, a.associated_data(suite) == b.associated_data(suite));
        }
        Input::Root(text) => {
            let is_name = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let parsed = text.parse::<ImageRoot>().map(|root| root.to_string());
            assert_eq!(parsed.ok(), is_name.then(|| text.to_ascii_lowercase()));
        }
        Input::RootBytes(bytes) => {
            assert_eq!(ImageRoot(*bytes).to_string().parse(), Ok(ImageRoot(*bytes)));
        }
        Input::Key(bytes) => {
            let key = RootKey::try_from(&bytes[..]).map(|key| key.expose().to_vec());
            assert_eq!(key.ok().as_ref(), Some(bytes).filter(|bytes| bytes.len() == 32));
        }
        Input::Trace(text) => {
            if let Ok(trace) = text.parse::<Trace>() {
                let again: Trace = trace.to_string().parse().expect("it was one before");
                assert_eq!(again.to_string(), trace.to_string());
                assert_eq!(again.events, trace.events);
                assert!(trace.events.iter().all(|event| event.fits(trace.config)));
            }
        }
        Input::Mask(fields) => mask(fields),
    }
}

const fn is_in_range(id: Id) -> bool {
    let small = id.gfn < 1 << 40 && id.version < 1 << 56;
    small && id.mask < 64 && matches!(id.stream, 1..=3)
}

/// The layout of spec/sealed-image.md, "Associated data".
fn as_specified(id: Id, data: &[u8; 32], SuiteId(suite): SuiteId) {
    let head = [
        0x50,
        suite,
        12,
        if id.excluded { 4 } else { 0 },
        id.stream,
        id.kind,
        if id.writable { 3 } else { 1 },
        id.mask,
    ];
    let words = [id.gfn, id.version, id.epoch].map(u64::to_le_bytes).concat();
    assert_eq!(data[..], [&head[..], &words].concat());
}

/// A byte shows if a field has it, and every other is zero; no field ends past its page.
fn mask(fields: &[(u16, u16)]) {
    let (mut page, mut shown) = (Box::new(Page::zeroed()), Box::new(Page::zeroed()));
    page.bytes_mut().fill(0xa5);
    shown.bytes_mut().fill(0x5a);
    let whole = |&&(start, len): &&(u16, u16)| u32::from(start) + u32::from(len) <= 4096;
    let inside: Vec<&(u16, u16)> = fields.iter().filter(whole).collect();
    let made: Vec<Field> =
        fields.iter().filter_map(|(start, len)| Field::new(*start, *len).ok()).collect();
    assert_eq!(made.len(), inside.len());
    Mask(&made).apply(&page, &mut shown);
    let shows = |at: usize| {
        inside.iter().any(|&&(start, len)| {
            let start = usize::from(start);
            (start..start + usize::from(len)).contains(&at)
        })
    };
    for (at, byte) in shown.bytes().iter().enumerate() {
        assert_eq!(*byte, if shows(at) { 0xa5 } else { 0 }, "byte {at}");
    }
}
