//! Whatever the keeper of an image makes of it: parts cut off, repeated, swapped, put in the place
//! of others or taken from other images of the same guest, and counts changed.
//!
//! Bytes, cipher and reader are the real ones. The keeper has no key, but has every image that was
//! ever sealed, and may put any part of it in any place.

use std::fmt;

use view_core::image::{HEADER_SIZE, ImageError};

use super::fooled::{self, Fooled};
use super::kept::{self, Image, Kept, Opened, PARTS, RECORDS, three};
use super::{After, Claim, Found, Model, Study, Wanted, Wrong};

/// The study of what a keeper can do.
pub(super) const IMAGE: Study = Study {
    name: "image",
    purpose: "the keeper of an image cuts, repeats, swaps, splices and counts anew",
    bounds: "3 images of 2 pages in 2 epochs, 2 changes on top of any of them",
    claims: &[Claim {
        id: "F6",
        sentence: "An image that was cut, extended, reordered, spliced or written in part is \
                   refused, and so is a record made of a node: what is believed is, byte for \
                   byte, what was sealed.",
    }],
    wrongs: &[
        Wrong {
            name: "root-without-header",
            sentence: "the image root does not say of which header it is",
            caught_by: &["F6"],
        },
        Wrong {
            name: "records-without-version",
            sentence: "the manifest leaves out the versions and tags of its records",
            caught_by: &["F1", "F6"],
        },
        Wrong {
            name: "any-state",
            sentence: "neither the image root nor the sealed state says whose state it is",
            caught_by: &["F6"],
        },
        Wrong {
            name: IGNORES_ROOT,
            sentence: "the reader takes a genuine image that is not the one it was asked for",
            caught_by: &["F6"],
        },
    ],
    reaches: &[
        "an older image is genuine and not the pinned one",
        "a header with another count is refused",
        "a trailer of another image is refused",
        "records in another order are refused",
        "a page of another image is refused",
        "a state of another image is refused",
        "an image cut short is refused",
        "an image with more in it is refused",
    ],
    explore,
};

const IGNORES_ROOT: &str = "ignores-root";

/// Two show what a format lacks: one part and what vouches for it.
const CHANGES_MAX: u8 = 2;
/// Where among the images the one is that the owner wants, and that the keeper begins with.
const NEWEST: u8 = 1;
/// Where spec/sealed-image.md has the number of pages.
const PAGES_AT: usize = 96;

/// One part of a file: a part of some image, or its header with another number of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Of { image: u8, part: u8 },
    Counting { image: u8, pages: u8 },
}

/// A file in the keeper's hands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    parts: Vec<Part>,
    changes: u8,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Bring(u8),
    Cut(u8),
    Remove(u8),
    Repeat(u8),
    Swap(u8, u8),
    Replace(u8, Part),
    Read { pinned: bool },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bring(image) => write!(f, "keeper brings image {image}"),
            Self::Cut(part) => write!(f, "keeper cuts it off before part {part}"),
            Self::Remove(part) => write!(f, "keeper takes part {part} out"),
            Self::Repeat(part) => write!(f, "keeper repeats part {part}"),
            Self::Swap(one, other) => write!(f, "keeper swaps parts {one} and {other}"),
            Self::Replace(part, Part::Of { image, part: from }) => {
                let from = kept::NAMES[usize::from(*from)];
                write!(f, "keeper puts the {from} of image {image} in place of part {part}")
            }
            Self::Replace(_, Part::Counting { pages, .. }) => {
                write!(f, "keeper has the header say {pages} pages")
            }
            Self::Read { pinned: true } => f.write_str("owner reads it, knowing the root"),
            Self::Read { pinned: false } => f.write_str("owner reads it"),
        }
    }
}

struct Keeper {
    kept: [Kept; 3],
    images: Vec<Image>,
    opened: Vec<Opened>,
    fooled: Option<Fooled>,
    ignores_root: bool,
}

impl Keeper {
    fn new(wrong: Option<&'static str>) -> Self {
        let kept = three();
        let images: Vec<Image> = kept.iter().map(Kept::image).collect();
        let open = |image: &Image| kept::read(&image.file(), Some(image.root)).expect("genuine");
        let opened = images.iter().map(open).collect();
        let fooled = wrong.and_then(|wrong| match wrong {
            "root-without-header" => Some(Fooled::RootWithoutHeader),
            "records-without-version" => Some(Fooled::RecordsWithoutVersion),
            "any-state" => Some(Fooled::AnyState),
            _ => None,
        });
        Self { kept, images, opened, fooled, ignores_root: wrong == Some(IGNORES_ROOT) }
    }

    fn whole(image: u8) -> Vec<Part> {
        (0..).take(PARTS).map(|part| Part::Of { image, part }).collect()
    }

    fn size(&self, part: Part) -> usize {
        match part {
            Part::Of { image, part } => {
                self.images[usize::from(image)].parts[usize::from(part)].len()
            }
            Part::Counting { .. } => HEADER_SIZE,
        }
    }

    fn bytes(&self, part: Part) -> Vec<u8> {
        let (Part::Of { image, .. } | Part::Counting { image, .. }) = part;
        let parts = &self.images[usize::from(image)].parts;
        match part {
            Part::Of { part, .. } => parts[usize::from(part)].clone(),
            Part::Counting { pages, .. } => {
                let mut header = parts[0].clone();
                header[PAGES_AT] = pages;
                header
            }
        }
    }

    fn read(&self, file: &File, pinned: bool) -> (Vec<&'static str>, Vec<&'static str>) {
        let parts: Vec<Vec<u8>> = file.parts.iter().map(|part| self.bytes(*part)).collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let pin = (pinned && !self.ignores_root).then(|| self.images[usize::from(NEWEST)].root);
        let verdict = fooled::read(self.fooled, &self.images, &slices, pin);
        let bytes = parts.concat();
        let genuine = self.images.iter().position(|image| image.file() == bytes);
        let mut broken = Vec::new();
        if self.breaks_f6(&bytes, genuine, pinned, &verdict) {
            broken.push("F6");
        }
        if verdict.as_ref().is_ok_and(|opened| self.breaks_f1(opened)) {
            broken.push("F1");
        }
        (broken, reached(file, genuine, &verdict))
    }

    /// What is believed is one of the images, and what was not touched is believed.
    fn breaks_f6(
        &self,
        bytes: &[u8],
        genuine: Option<usize>,
        pinned: bool,
        verdict: &Result<Opened, ImageError>,
    ) -> bool {
        use ImageError::{BadRecord, PageForged, StateForged};
        let wanted = |image: usize| !pinned || image == usize::from(NEWEST);
        match verdict {
            Ok(opened) => !genuine.is_some_and(|at| wanted(at) && self.opened[at] == *opened),
            // The manifest was believed by then.
            Err(StateForged | PageForged(_) | BadRecord(_)) => {
                !self.images.iter().any(|image| manifest(&image.file()) == manifest(bytes))
            }
            Err(_) => genuine.is_some_and(wanted),
        }
    }

    /// Every page is taken under the version that the image of this header has it.
    fn breaks_f1(&self, opened: &Opened) -> bool {
        let named = |kept: &&Kept| u64::from(kept.sequence) == opened.header.sequence;
        let Some(kept) = self.kept.iter().find(named) else { return true };
        let mut pages = opened.pages.iter().zip(&kept.bodies);
        pages.any(|((record, _), sealed)| record.version() != sealed.version)
    }
}

/// Header, records and trailer of a file of two pages.
fn manifest(file: &[u8]) -> [&[u8]; 2] {
    const RECORDS_AND_TRAILER: usize = (PARTS - 1 - RECORDS) * 32 + 48;
    let tail = file.len().saturating_sub(RECORDS_AND_TRAILER);
    [&file[..file.len().min(4096)], &file[tail..]]
}

fn reached(
    file: &File,
    genuine: Option<usize>,
    verdict: &Result<Opened, ImageError>,
) -> Vec<&'static str> {
    let counts = matches!(file.parts.first(), Some(Part::Counting { .. }));
    let name = match verdict {
        Err(ImageError::NotPinned) if genuine.is_some() => {
            "an older image is genuine and not the pinned one"
        }
        Err(ImageError::HeaderForged) if counts => "a header with another count is refused",
        Err(ImageError::TrailerForged) => "a trailer of another image is refused",
        Err(ImageError::RecordsForged) => "records in another order are refused",
        Err(ImageError::PageForged(_)) => "a page of another image is refused",
        Err(ImageError::StateForged) => "a state of another image is refused",
        Err(ImageError::Truncated { .. }) => "an image cut short is refused",
        Err(ImageError::TooLong { .. }) => "an image with more in it is refused",
        Ok(_) | Err(_) => return Vec::new(),
    };
    vec![name]
}

impl Model for Keeper {
    type State = File;
    type Event = Change;

    fn start(&self) -> File {
        File { parts: Self::whole(NEWEST), changes: 0 }
    }

    fn events(&self, file: &File) -> Vec<Change> {
        let mut events = vec![Change::Read { pinned: false }, Change::Read { pinned: true }];
        let images = (0..).take(self.images.len());
        if *file == self.start() {
            events.extend(images.clone().map(Change::Bring));
        }
        if file.changes == CHANGES_MAX {
            return events;
        }
        let parts = (0..).take(file.parts.len());
        for part in parts.clone() {
            events.extend([Change::Cut(part), Change::Remove(part), Change::Repeat(part)]);
            events.extend(parts.clone().skip_while(|&p| p <= part).map(|p| Change::Swap(part, p)));
            for image in images.clone() {
                let theirs = (0..).take(PARTS).map(|part| Part::Of { image, part });
                // What has another size is refused by length, as what was removed or repeated is.
                let fits = |of: &Part| self.size(*of) == self.size(file.parts[usize::from(part)]);
                events.extend(theirs.filter(fits).map(|of| Change::Replace(part, of)));
            }
        }
        if let Some(Part::Of { image, part: 0 }) = file.parts.first() {
            let counting = |pages| Change::Replace(0, Part::Counting { image: *image, pages });
            events.extend([0, 1, 3].map(counting));
        }
        events
    }

    fn apply(&self, file: &File, change: Change) -> After<File> {
        let mut state = file.clone();
        state.changes += u8::from(!matches!(change, Change::Read { .. } | Change::Bring(_)));
        let parts = &mut state.parts;
        match change {
            Change::Bring(image) => *parts = Self::whole(image),
            Change::Cut(part) => parts.truncate(usize::from(part)),
            Change::Remove(part) => drop(parts.remove(usize::from(part))),
            Change::Repeat(part) => parts.insert(usize::from(part), parts[usize::from(part)]),
            Change::Swap(one, other) => parts.swap(usize::from(one), usize::from(other)),
            Change::Replace(part, of) => parts[usize::from(part)] = of,
            Change::Read { pinned } => {
                let (broken, reached) = self.read(file, pinned);
                return After { state, broken, reached };
            }
        }
        After { state, ..After::default() }
    }
}

fn explore(wanted: Wanted) -> Found {
    super::explore(&Keeper::new(wanted.wrong), wanted)
}
