//! What must be true whatever a hypervisor does: a model of some guests beside the monitor's, and
//! the checks that hold the two together.

use std::collections::{BTreeMap, BTreeSet};

use frontend_bare::general::General;
use view_core::{Ownership, Page, VmNumber};
use zerocopy::IntoBytes;

use crate::guest::{Guest, PAGES};
use crate::rig::{Missed, Rig, Size};

/// So many guests there are, each with a place of its own in memory.
pub(crate) const GUESTS: usize = 3;

/// Frames that hypervisors play with.
pub(crate) const FRAMES: u64 = 160;

const SIZE: Size = Size { frames: 256, own: FRAMES..256, tables: 88 };

/// Every secret word has this in its upper half, which no sealed page happens to have; below it
/// whose it is, of which launch, and a number of its own.
const MARK: u64 = 0x5ec2_e75a << 32;
const NUMBER: u64 = 0xf_ffff;

/// What a guest knows of itself.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The monitor's number for it, while it is launched.
    pub(crate) number: Option<u16>,
    /// How often it was launched.
    launches: u64,
    /// The tables that it runs on.
    root: u64,
    /// What it wrote where.
    words: BTreeMap<(u64, usize), u64>,
    /// Pages that it opened, and whether to be written.
    pub(crate) open: BTreeMap<u64, bool>,
    /// Its registers, where the hypervisor may not change them.
    registers: Option<General>,
}

/// The monitor, and what guests know.
pub(crate) struct World {
    pub(crate) rig: Rig,
    pub(crate) guests: [Known; GUESTS],
    /// Which guest runs.
    pub(crate) running: Option<usize>,
    /// Control blocks as the hypervisor found them last.
    pub(crate) blocks: [Option<Page>; GUESTS],
    host_root: u64,
    /// Whose secrets are in which frame.
    secrets: BTreeMap<u64, BTreeSet<u64>>,
    lines: usize,
    count: u64,
    /// How often something of interest came up.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut rig = Rig::of(&SIZE);
        rig.says_next = true;
        let host_root = rig.root();
        let mut world = Self {
            rig,
            guests: Default::default(),
            running: None,
            blocks: Default::default(),
            host_root,
            secrets: BTreeMap::new(),
            lines: 0,
            count: 0,
            seen: BTreeMap::new(),
        };
        for number in 0..GUESTS as u64 {
            world.rig.make(Guest(number));
        }
        world
    }

    pub(crate) fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A word that nobody but this guest may have.
    fn secret(&mut self, who: usize) -> u64 {
        self.count += 1;
        self.name(who) | self.count
    }

    fn name(&self, who: usize) -> u64 {
        MARK | (who as u64) << 28 | self.guests[who].launches << 20
    }

    /// The guest that runs was just launched.
    pub(crate) fn is_launched(&mut self, who: usize) {
        self.listen();
        let line = self.rig.machine.console.iter().rfind(|line| line.contains("is launched"));
        let number = line.unwrap().split_whitespace().nth(2).unwrap().parse().unwrap();
        let known = &mut self.guests[who];
        let launches = known.launches + 1;
        *known = Known { number: Some(number), launches, ..Known::default() };
        self.guests[who].root = self.rig.root();
        self.note("launch");
    }

    /// The guest writes, and remembers what: a secret if nobody may see the page.
    pub(crate) fn write(&mut self, who: usize, gfn: u64, index: usize) {
        let is_open = self.guests[who].open.contains_key(&gfn);
        let launched = self.guests[who].number.is_some();
        let word = if is_open || !launched { 0x1111 } else { self.secret(who) };
        match self.rig.guest_write(gfn, index, word) {
            Ok(()) if launched && gfn < PAGES => {
                self.guests[who].words.insert((gfn, index), word);
            }
            Ok(()) => {}
            Err(missed) => self.missed(missed),
        }
    }

    /// The guest reads what it wrote, and finds that.
    pub(crate) fn read(&mut self, who: usize, gfn: u64, index: usize) {
        let known = &self.guests[who];
        let written = known.words.range((gfn, 0)..(gfn + 1, 0)).next_back();
        let index = written.map_or(index, |((_, index), _)| *index);
        let expected = known.words.get(&(gfn, index)).copied();
        let is_checked = known.number.is_some() && known.open.get(&gfn) != Some(&true);
        match self.rig.guest_read(gfn, index) {
            Ok(found) => {
                if let Some(expected) = expected.filter(|_| is_checked) {
                    assert_eq!(found, expected, "guest {who}, page {gfn:#x}, word {index}");
                    self.note("read back");
                }
            }
            Err(missed) => self.missed(missed),
        }
    }

    fn missed(&mut self, missed: Missed) {
        assert_eq!(missed, Missed::Left, "nobody raises anything in a guest");
        self.note("guest left at a page");
    }

    /// Before a page is opened the guest takes its secrets off it. False if it cannot.
    pub(crate) fn declassify(&mut self, who: usize, gfn: u64) -> bool {
        let places: Vec<_> = self.guests[who].words.keys().copied().collect();
        for (_, index) in places.into_iter().filter(|(of, _)| *of == gfn) {
            if self.rig.guest_write(gfn, index, 0x2222).is_err() {
                return false;
            }
            self.guests[who].words.insert((gfn, index), 0x2222);
        }
        true
    }

    /// What a hypervisor may have written is not what the guest wrote.
    pub(crate) fn forget(&mut self, who: usize, gfn: u64) {
        self.guests[who].words.retain(|(of, _), _| *of != gfn);
    }

    /// Secrets in all registers, before the guest comes out.
    pub(crate) fn fill(&mut self, who: usize) {
        let secret = self.secret(who);
        let (vmcb, switched) = self.rig.cpu();
        (vmcb.save.rax, vmcb.save.rsp, vmcb.save.lstar) = (secret, secret, secret);
        for word in switched.general.as_mut_bytes().as_chunks_mut::<8>().0 {
            *word = secret.to_le_bytes();
        }
        switched.extended.as_mut_bytes()[160..168].copy_from_slice(&secret.to_le_bytes());
        self.guests[who].registers = Some(switched.general.clone());
    }

    /// The guest was entered: its registers are what they were.
    pub(crate) fn has_registers(&mut self, who: usize) {
        let Some(kept) = self.guests[who].registers.take() else { return };
        let switched = self.rig.cpu().1;
        let is_same = kept.as_bytes() == switched.general.as_bytes();
        assert!(is_same, "guest {who} has other registers");
        self.note("registers");
    }

    /// What the console says of guests.
    pub(crate) fn listen(&mut self) {
        const REASONS: [(&str, &str); 6] = [
            ("came back as something else", "forged"),
            ("was to be in frame", "foreign"),
            ("was changed", "changed"),
            ("was given up", "given up"),
            ("is not for a guest", "event"),
            ("has ended", "ended"),
        ];
        let lines: Vec<_> = self.rig.machine.console[self.lines..].to_vec();
        self.lines += lines.len();
        for line in lines {
            for (text, name) in REASONS {
                if line.contains(text) {
                    self.note(name);
                }
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, "guest", number, verb, ..] = words[..] else { continue };
            let is_over = line.contains("is stopped") || ["was", "has"].contains(&verb);
            let number: u16 = number.parse().unwrap();
            for known in self.guests.iter_mut().filter(|_| is_over) {
                if known.number == Some(number) {
                    *known = Known { launches: known.launches, ..Known::default() };
                }
            }
        }
    }
}

/// The checks.
impl World {
    /// All of them.
    pub(crate) fn check(&mut self) {
        self.listen();
        self.look_for_secrets();
        self.check_host();
        self.check_guest();
        let owned: BTreeSet<_> = self.guests.iter().filter_map(|known| known.number).collect();
        for frame in 0..SIZE.frames {
            if let Some(Ownership::Owned(VmNumber(number), _)) = self.rig.owner(frame) {
                assert!(owned.contains(&number), "frame {frame:#x} is that of nobody");
                assert!(!SIZE.own.contains(&frame));
            }
        }
    }

    /// A secret is in no frame but its guest's, and in no register that the hypervisor has.
    fn look_for_secrets(&mut self) {
        for frame in std::mem::take(&mut self.rig.machine.written) {
            let found = self.rig.machine.page(frame).map(|page| secrets(page.bytes()));
            self.secrets.insert(frame, found.unwrap_or_default());
        }
        self.secrets.retain(|_, found| !found.is_empty());
        for (frame, found) in &self.secrets {
            let Some(Ownership::Owned(VmNumber(number), _)) = self.rig.owner(*frame) else {
                panic!("secrets {found:x?} in frame {frame:#x}, which is free");
            };
            let who = self.guests.iter().position(|known| known.number == Some(number)).unwrap();
            let name = BTreeSet::from([self.name(who)]);
            assert_eq!(*found, name, "in frame {frame:#x} of guest {who}");
        }
        if self.rig.ended.is_none() && !self.rig.is_in_guest() {
            let (vmcb, switched) = self.rig.cpu();
            let parts = [vmcb.as_bytes(), switched.general.as_bytes()];
            for part in parts.into_iter().chain([switched.extended.as_bytes()]) {
                assert_eq!(secrets(part), BTreeSet::new(), "the hypervisor's CPU has them");
            }
        }
    }

    /// The hypervisor reaches its own frames, and of guests' those that are sealed or open.
    fn check_host(&self) {
        let machine = &self.rig.machine;
        let found = |page| Some((page, machine.walk(self.host_root, page)?.1));
        let walked = (0..SIZE.frames).filter_map(found);
        for (page, (frame, writable)) in walked.chain(machine.remembered(1)) {
            assert_eq!(page, frame, "the hypervisor's memory is the host's");
            assert!(!SIZE.own.contains(&frame), "the monitor's frame {frame:#x} is mapped");
            let Some(Ownership::Owned(VmNumber(number), gfn)) = self.rig.owner(frame) else {
                continue;
            };
            let gfn = gfn.number();
            let known = self.guests.iter().find(|known| known.number == Some(number)).unwrap();
            let open = known.open.get(&gfn);
            assert!(!writable || open == Some(&true), "frame {frame:#x} may be written");
            let in_plain = machine.walk(known.root, gfn).is_some();
            assert!(!in_plain || open.is_some(), "frame {frame:#x} is in two views");
        }
    }

    /// Each guest reaches its own frames, and one that is not launched nobody else's.
    fn check_guest(&mut self) {
        for known in self.guests.iter().filter(|known| known.number.is_some()) {
            let number = VmNumber(known.number.unwrap());
            for gfn in 0..PAGES {
                let Some((_, (frame, _))) = self.rig.machine.walk(known.root, gfn) else {
                    continue;
                };
                let owner = self.rig.owner(frame);
                let Some(Ownership::Owned(vm, of)) = owner else {
                    panic!("page {gfn:#x} is in frame {frame:#x}, which is {owner:?}");
                };
                assert_eq!((vm, of.number()), (number, gfn), "in frame {frame:#x}");
            }
        }
        if self.rig.ended.is_some() || !self.rig.is_in_guest() {
            return;
        }
        let root = self.rig.root();
        let launched = self.running.and_then(|who| self.guests[who].number);
        let walked = (0..PAGES).filter_map(|gfn| Some((gfn, self.rig.machine.walk(root, gfn)?.1)));
        for (gfn, (frame, _)) in walked.chain(self.rig.machine.remembered(2)) {
            assert!(!SIZE.own.contains(&frame), "the monitor's frame {frame:#x} is mapped");
            let owner = self.rig.owner(frame);
            match (owner, launched) {
                (Some(Ownership::Owned(vm, of)), Some(number)) => {
                    assert_eq!((vm, of.number()), (VmNumber(number), gfn));
                }
                (Some(Ownership::Owned(..)), None) | (_, Some(_)) => {
                    panic!("page {gfn:#x} is in frame {frame:#x} of {owner:?}");
                }
                (_, None) => {}
            }
        }
    }
}

/// Whose secrets are among these bytes.
fn secrets(bytes: &[u8]) -> BTreeSet<u64> {
    let mark = (MARK >> 32) as u32;
    let (words, _) = bytes.as_chunks::<8>();
    let marked = words.iter().filter(|word| word[4..] == mark.to_le_bytes());
    marked.map(|word| u64::from_le_bytes(*word) & !NUMBER).collect()
}
