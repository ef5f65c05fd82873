//! An image sent over a network that is a multiset of messages: what was ever sent can be lost,
//! late, repeated, out of order, years old, or in an envelope with another address.
//!
//! The receiver is the shipped reader and the shipped core: what a page is decides whether
//! anything may still be installed in it.

use std::collections::BTreeMap;
use std::fmt;

use view_core::image::GenuineRecord;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, OpenJob, PageCipher, Stream};
use view_core::whitelist::RestoredPage;
use view_core::{Page, PageState};

use super::guest::{Guest, PAGES, Sealed, pages};
use super::kept::{self, Image, Kept, Opened, TRAILER, three};
use super::{After, Found, Model, Study, Wanted, Wrong};

/// The study of images on their way.
pub(super) const WIRE: Study = Study {
    name: "wire",
    purpose: "an image streamed over a network that loses, repeats, reorders, replays and forges",
    bounds: "an image of 2 pages, two others sent before, 2 pages of a view, one forged; one store",
    claims: &[],
    wrongs: &[
        Wrong {
            name: "installs-again",
            sentence: "a page of a stream is installed as often as it arrives",
            caught_by: &["F1", "I1"],
        },
        Wrong {
            name: "record-beside-page",
            sentence: "the receiver takes version, epoch, gfn, stream and tag from what comes with \
                       a page, not from the manifest",
            caught_by: &["F1", "F3"],
        },
        Wrong {
            name: "launches-early",
            sentence: "the receiver launches the guest before every page is there",
            caught_by: &["L2"],
        },
    ],
    reaches: &[
        "a genuine header of another image",
        "another image's manifest is refused",
        "a page in another's place is refused",
        "a page of another image is refused",
        "a page of a view is refused",
        "a forged page is refused",
        "a page that came again is refused",
        "the image has arrived",
        "a page arrives after its guest stored to it",
    ],
    explore,
};

/// The image that is being sent; the others were sent before.
const NEWEST: usize = 1;
const IMAGES: usize = 3;
/// Where its manifest comes from: header, records and trailer.
const PINNED: [u8; 3] = [1; 3];
/// Sealed pages that can be in an envelope: those of images, those of a view, and a forged one.
const BODIES: usize = (IMAGES + 1) * PAGES + 1;
const FORGED: usize = BODIES - 1;

/// A header, records and a trailer, each of any image.
fn triples() -> impl Iterator<Item = [u8; 3]> {
    (0..27).map(|number: u8| [number / 9, number / 3 % 3, number % 3])
}

/// Both ends of the wire. The wire itself holds all that was sent, for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ends {
    /// How much of the newest image was sent: header, pages, records, trailer.
    sent: u8,
    /// The image whose genuine header the receiver holds.
    header: Option<u8>,
    manifest: bool,
    installed: [bool; PAGES],
    guest: Guest,
    launched: bool,
    /// The store that the guest made last in each page, once it runs.
    latest: [u8; PAGES],
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Send,
    Header(u8),
    /// Records arrive, and a trailer, perhaps of another image.
    Manifest {
        records: u8,
        trailer: u8,
    },
    /// A sealed page arrives in an envelope that says which page it is.
    Body(usize, u8),
    Launch,
    Store(u8),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send => f.write_str("the sender sends on"),
            Self::Header(image) => write!(f, "the header of image {image} arrives"),
            Self::Manifest { records, trailer } => {
                write!(f, "the records of image {records} and the trailer of {trailer} arrive")
            }
            Self::Body(FORGED, place) => write!(f, "a forged page arrives as page {place}"),
            Self::Body(body, place) => {
                let (of, page) = (body / PAGES, body % PAGES);
                let of = if of == IMAGES { "the view".into() } else { format!("image {of}") };
                write!(f, "page {page} of {of} arrives as page {place}")
            }
            Self::Launch => f.write_str("the receiver launches the guest"),
            Self::Store(page) => write!(f, "the guest stores to page {page}"),
        }
    }
}

struct Receiver {
    opened: Opened,
    /// What is in each envelope; the forged one says what the newest page 0 says.
    bodies: Vec<Sealed>,
    /// Whether header, records and trailer of these images make the pinned image's manifest.
    manifests: BTreeMap<[u8; 3], bool>,
    /// Whether each sealed page opens as each page of the newest image.
    opens: Vec<[bool; PAGES]>,
    wrong: Option<&'static str>,
}

impl Receiver {
    fn new(wrong: Option<&'static str>) -> Self {
        let kept = three();
        let images: Vec<Image> = kept.iter().map(Kept::image).collect();
        let pinned = images[NEWEST].root;
        let opened = kept::read(&images[NEWEST].file(), Some(pinned)).expect("genuine");
        let mut guest = Guest::building(1);
        guest.launch();
        guest.store(0);
        let viewed = pages().filter_map(|page| guest.export(page, Stream::View));
        let mut bodies: Vec<Sealed> = kept.iter().flat_map(|kept| kept.bodies).collect();
        bodies.extend(viewed);
        bodies.push(kept[NEWEST].bodies[0]);
        let manifest = |from: [u8; 3]| {
            let [header, records, trailer] = from.map(|image| &images[usize::from(image)]);
            kept::manifest(&header.parts[0], &records.records(), &trailer.parts[TRAILER], pinned)
        };
        let manifests = triples().map(|from| (from, manifest(from).is_some())).collect();
        let genuine = manifest(PINNED).expect("its own");
        let opens = bodies.iter().enumerate().map(|(body, sealed)| {
            let (mut page, _) = kept::body(sealed);
            page.bytes_mut()[0] ^= u8::from(body == FORGED);
            std::array::from_fn(|place| opens(&genuine[place], &page))
        });
        Self { opens: opens.collect(), opened, bodies, manifests, wrong }
    }

    /// Whether the receiver would take a sealed page in this place.
    fn takes(&self, ends: &Ends, body: usize, place: usize) -> bool {
        let wrong = |name| self.wrong == Some(name);
        let page = u8::try_from(place).unwrap_or(u8::MAX);
        let building = ends.guest.state(page) == PageState::Building;
        let first = building && !ends.installed[place] || wrong("installs-again");
        let beside = wrong("record-beside-page") && body != FORGED;
        ends.manifest && first && (self.opens[body][place] || beside)
    }

    fn manifest(&self, ends: &Ends, records: u8, trailer: u8) -> After<Ends> {
        let mut after = After { state: ends.clone(), broken: Vec::new(), reached: Vec::new() };
        let (Some(header), false) = (ends.header, ends.manifest) else { return after };
        let from = [header, records, trailer];
        after.state.manifest = self.manifests[&from];
        if after.state.manifest != (from == PINNED) {
            after.broken.push("F6");
        }
        after.reached.extend((from != PINNED).then_some("another image's manifest is refused"));
        after
    }

    fn body(&self, ends: &Ends, body: usize, place: u8) -> After<Ends> {
        let (mut state, at) = (ends.clone(), usize::from(place));
        let (sealed, record) = (&self.bodies[body], &self.opened.pages[at].0);
        if !self.takes(ends, body, at) {
            let reached = if ends.manifest { vec![self.refusal(ends, body, at)] } else { vec![] };
            return After { state, broken: Vec::new(), reached };
        }
        state.guest.memory[at] = sealed.inner;
        state.installed[at] = true;
        let mut broken = Vec::new();
        if ends.installed[at] || sealed.version != record.version() {
            broken.push("F1");
        }
        let (id, expected) = (sealed.id(), record.page_id());
        if (id.gfn, id.epoch, id.stream) != (expected.gfn, expected.epoch, expected.stream) {
            broken.push("F3");
        }
        if ends.launched && state.guest.memory != ends.latest {
            broken.push("I1");
        }
        After { state, broken, reached: Vec::new() }
    }

    /// Why a page was not taken, if its manifest is known.
    fn refusal(&self, ends: &Ends, body: usize, place: usize) -> &'static str {
        if self.opens[body][place] && ends.guest.memory[place] != self.opened.pages[place].1 {
            return "a page arrives after its guest stored to it";
        }
        match (body / PAGES, body % PAGES) {
            _ if body == FORGED => "a forged page is refused",
            (IMAGES, _) => "a page of a view is refused",
            (NEWEST, page) if page == place => "a page that came again is refused",
            (NEWEST, _) => "a page in another's place is refused",
            _ => "a page of another image is refused",
        }
    }

    fn launch(&self, ends: &Ends) -> After<Ends> {
        let mut state = ends.clone();
        state.launched = true;
        state.guest.launch();
        state.guest.cpu = self.opened.cpu;
        for (record, _) in &self.opened.pages {
            state.guest.reopen(&RestoredPage { record: *record });
        }
        state.latest = state.guest.memory;
        let arrived = state.latest.iter().eq(self.opened.pages.iter().map(|(_, store)| store));
        let broken = if arrived { Vec::new() } else { vec!["L2"] };
        After { state, broken, reached: vec!["the image has arrived"] }
    }
}

/// Whether these bytes are the page that a genuine record is about.
fn opens(record: &GenuineRecord, page: &Page) -> bool {
    let cipher = SivCmac512::new(&kept::key(record.page_id().epoch.0).siv(Stream::Image.id()));
    let mut plain = Box::new(Page::zeroed());
    let mut jobs = [OpenJob::new(record.page_id(), page, record.tag(), &mut plain)];
    cipher.open(&mut jobs, Landing::Hot);
    jobs.iter().all(OpenJob::genuine)
}

impl Model for Receiver {
    type State = Ends;
    type Event = Event;

    fn start(&self) -> Ends {
        Ends {
            sent: 0,
            header: None,
            manifest: false,
            installed: [false; PAGES],
            guest: Guest::building(3),
            launched: false,
            latest: [0; PAGES],
        }
    }

    fn events(&self, ends: &Ends) -> Vec<Event> {
        // Header, pages, records, trailer: the order of the format.
        let parts = 3 + u8::try_from(PAGES).unwrap_or_default();
        let was_sent = |image: usize, part: usize| image != NEWEST || usize::from(ends.sent) > part;
        let mut events = Vec::new();
        events.extend((ends.sent < parts).then_some(Event::Send));
        for (image, number) in (0..IMAGES).zip(0..) {
            events.extend(was_sent(image, 0).then_some(Event::Header(number)));
        }
        let sent = |image: u8, part| was_sent(usize::from(image), part);
        let manifests = triples()
            .filter(|[_, records, trailer]| sent(*records, 1 + PAGES) && sent(*trailer, 2 + PAGES));
        let under = manifests.filter(|[header, ..]| ends.header == Some(*header));
        events.extend(under.map(|[_, records, trailer]| Event::Manifest { records, trailer }));
        let there = (0..BODIES).filter(|body| was_sent(body / PAGES, 1 + body % PAGES));
        events.extend(there.flat_map(|body| pages().map(move |place| Event::Body(body, place))));
        if ends.launched {
            let first = ends.guest.cpu == self.opened.cpu;
            events.extend(pages().filter(|_| first).map(Event::Store));
        } else if ends.installed == [true; PAGES] || self.wrong == Some("launches-early") {
            events.push(Event::Launch);
        }
        events
    }

    fn apply(&self, ends: &Ends, event: Event) -> After<Ends> {
        let mut state = ends.clone();
        let mut reached = Vec::new();
        match event {
            Event::Send => state.sent += 1,
            Event::Header(image) => {
                if !ends.manifest {
                    state.header = Some(image);
                    reached.extend(
                        (usize::from(image) != NEWEST)
                            .then_some("a genuine header of another image"),
                    );
                }
            }
            Event::Manifest { records, trailer } => return self.manifest(ends, records, trailer),
            Event::Body(body, place) => return self.body(ends, body, place),
            Event::Launch => return self.launch(ends),
            Event::Store(page) => {
                state.guest.store(page);
                state.latest = state.guest.memory;
            }
        }
        After { state, broken: Vec::new(), reached }
    }
}

fn explore(wanted: Wanted) -> Found {
    super::explore(&Receiver::new(wanted.wrong), wanted)
}
