//! Keys from their derivation to their end, in real bytes: VMs start, crash, are restored and
//! destroyed, and the management side keeps everything that it ever saw and hands it over again.
//!
//! The trusted side here asks nothing before it opens a page but the cipher, with whatever is where
//! the VM's key was. So what refuses a page of an ended incarnation is that its key is gone.

mod real;

use std::fmt;

use view_core::key::{EpochKey, RootKey};
use view_core::suite::Stream;

use crate::study::{After, Claim, Model, Study, Wrong, explore};
use real::{Incarnation, Kept, ROOT, Secrets, log, restores, wiped};

/// The study.
pub(crate) const STUDY: Study = Study {
    name: "keys",
    purpose: "keys from derivation to their end, in real bytes: restarts, restores, destruction",
    bounds: "two VMs of one owner, three incarnations, two crashes, two sealed pages or images",
    claims: &[Claim {
        id: "C12",
        sentence: "No sealed page, image, log or freed memory holds a key; once an incarnation has \
                   ended no page opens under its keys, and once the owner's key has ended no image \
                   does.",
    }],
    wrongs: WRONGS,
    reaches: &[RETURNED, ENDED, STRANGE, WRONG_STREAM, RESTORED, OWNERLESS, NUMBERED_ALIKE],
    explore: |wanted| explore(&Machine { wrong: wanted.wrong }, wanted),
};

const KEEPS_KEY: &str = "keeps-key";
const FREES_KEY: &str = "frees-key";
const STORES_KEY: &str = "stores-key";
const PRINTS_KEY: &str = "prints-key";
const KEEPS_ROOT: &str = "keeps-root";
const KEEPS_SALT: &str = "keeps-salt";
const SHARES_KEYS: &str = "shares-keys";

const WRONGS: &[Wrong] = &[
    Wrong {
        name: KEEPS_KEY,
        sentence: "the key of a VM that was destroyed stays where it was",
        caught_by: &["C12"],
    },
    Wrong {
        name: FREES_KEY,
        sentence: "memory that held a key is given back as it is",
        caught_by: &["C12"],
    },
    Wrong {
        name: STORES_KEY,
        sentence: "the key is stored beside what was sealed under it",
        caught_by: &["C12"],
    },
    Wrong { name: PRINTS_KEY, sentence: "a log shows the bytes of a key", caught_by: &["C12"] },
    Wrong {
        name: KEEPS_ROOT,
        sentence: "the owner's key is kept when its owner has given it up",
        caught_by: &["C12"],
    },
    Wrong {
        name: KEEPS_SALT,
        sentence: "a VM that starts again has the salt that it had before",
        caught_by: &["C6", "C12", "F3"],
    },
    Wrong {
        name: SHARES_KEYS,
        sentence: "all VMs of an owner have the same keys: neither name nor salt goes into them",
        caught_by: &["C6", "C12", "F3"],
    },
];

const RETURNED: &str = "a page came back to the incarnation that sealed it";
const ENDED: &str = "a page of an ended incarnation was refused";
const STRANGE: &str = "a page of another VM was refused";
const WRONG_STREAM: &str = "the page of an image was refused as a resident one";
const RESTORED: &str = "an image of an ended incarnation was restored";
const OWNERLESS: &str = "an image was refused because its owner's key had ended";
const NUMBERED_ALIKE: &str = "two incarnations of a VM had the same epoch";

const VMS: usize = 2;
const INCARNATIONS: usize = 3;
const CRASHES: u8 = 2;
const KEPT: usize = 2;

/// The trusted side, sound or not.
struct Machine {
    wrong: Option<&'static str>,
}

/// Trusted memory, and what the management side keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// Where the owner's key is.
    root: [u8; 32],
    /// Whether the owner has given it up.
    ownerless: bool,
    /// Where each VM's key is, while it runs.
    memory: [[u8; 32]; VMS],
    /// Which incarnation of each VM runs.
    runs: [Option<Incarnation>; VMS],
    destroyed: [bool; VMS],
    incarnations: Vec<Incarnation>,
    kept: Vec<Kept>,
    crashes: u8,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Start(u8),
    Seal(u8, Stream),
    Hand(usize, u8),
    Restore(usize),
    Destroy(u8),
    Crash,
    EndOwner,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(vm) => write!(f, "vm{vm} start"),
            Self::Seal(vm, Stream::Image) => write!(f, "vm{vm} snapshot"),
            Self::Seal(vm, Stream::View | Stream::Resident) => write!(f, "vm{vm} seal"),
            Self::Hand(kept, vm) => write!(f, "management hand kept{kept} vm{vm}"),
            Self::Restore(kept) => write!(f, "restore kept{kept}"),
            Self::Destroy(vm) => write!(f, "vm{vm} destroy"),
            Self::Crash => f.write_str("crash"),
            Self::EndOwner => f.write_str("owner gives its key up"),
        }
    }
}

impl Model for Machine {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State {
            root: ROOT,
            ownerless: false,
            memory: [[0; 32]; VMS],
            runs: [None; VMS],
            destroyed: [false; VMS],
            incarnations: Vec::new(),
            kept: Vec::new(),
            crashes: 0,
        }
    }

    fn events(&self, state: &State) -> Vec<Event> {
        let mut events = Vec::new();
        for (vm, runs) in (0_u8..).zip(state.runs) {
            if state.may_start(vm) && !state.ownerless {
                events.push(Event::Start(vm));
            }
            if runs.is_some() {
                if state.kept.len() < KEPT {
                    events.extend([Stream::Resident, Stream::Image].map(|to| Event::Seal(vm, to)));
                }
                events.push(Event::Destroy(vm));
            }
            events.extend((0..state.kept.len()).map(|at| Event::Hand(at, vm)));
        }
        let image = |at: &usize| {
            let Kept { by, stream, .. } = state.kept[*at];
            stream == Stream::Image && state.may_start(by.vm)
        };
        events.extend((0..state.kept.len()).filter(image).map(Event::Restore));
        if state.crashes < CRASHES && state.runs.iter().any(Option::is_some) {
            events.push(Event::Crash);
        }
        if !state.ownerless {
            events.push(Event::EndOwner);
        }
        events
    }

    fn apply(&self, state: &State, event: Event) -> After<State> {
        let mut step = Step { machine: self, after: After::of(state.clone()), seen: Vec::new() };
        match event {
            Event::Start(vm) => step.start(vm, 1),
            Event::Seal(vm, stream) => step.seal(vm, stream),
            Event::Hand(kept, vm) => step.hand(kept, vm),
            Event::Restore(kept) => step.restore(kept),
            Event::Destroy(vm) => step.destroy(vm),
            Event::Crash => step.crash(),
            Event::EndOwner => step.end_owner(),
        }
        step.look();
        step.after
    }
}

impl State {
    fn may_start(&self, vm: u8) -> bool {
        let vm = usize::from(vm);
        let room = self.incarnations.len() < INCARNATIONS;
        room && self.runs[vm].is_none() && !self.destroyed[vm]
    }

    fn ended(&self, incarnation: Incarnation) -> bool {
        !self.runs.contains(&Some(incarnation))
    }
}

impl<S> After<S> {
    const fn of(state: S) -> Self {
        Self { state, broken: Vec::new(), reached: Vec::new() }
    }
}

/// One event under way: what became of it, and what the management side sees of it.
struct Step<'m> {
    machine: &'m Machine,
    after: After<State>,
    seen: Vec<Vec<u8>>,
}

impl Step<'_> {
    fn is(&self, wrong: &str) -> bool {
        self.machine.wrong == Some(wrong)
    }

    fn start(&mut self, vm: u8, epoch: u8) {
        let number = u8::try_from(self.after.state.incarnations.len()).unwrap_or(u8::MAX);
        let salt = if self.is(KEEPS_SALT) { vm } else { number };
        let incarnation = Incarnation { number, vm, epoch, salt };
        let State { incarnations, runs, memory, root, .. } = &mut self.after.state;
        if incarnations.iter().any(|old| (old.vm, old.epoch) == (vm, epoch)) {
            self.after.reached.push(NUMBERED_ALIKE);
        }
        incarnations.push(incarnation);
        runs[usize::from(vm)] = Some(incarnation);
        let root = RootKey::new(*root);
        memory[usize::from(vm)] = *self.machine.key(incarnation, &root).expose();
        let mut log = log(&root, incarnation);
        if self.is(PRINTS_KEY) {
            log += &format!(" {:?}", incarnation.key(&root).expose());
        }
        self.seen.push(log.into_bytes());
    }

    fn seal(&mut self, vm: u8, stream: Stream) {
        let Some(by) = self.after.state.runs[usize::from(vm)] else { return };
        let kept = &self.after.state.kept;
        let own = kept.iter().filter(|kept| kept.by == by).count();
        let [version, content] =
            [own, kept.len()].map(|count| u8::try_from(count + 1).unwrap_or(u8::MAX));
        let sealed = Kept { by, stream, version, content };
        let under = |kept: &Kept| {
            let key = self.machine.key(kept.by, &RootKey::new(ROOT)).siv(kept.stream.id());
            (*key.expose(), kept.id())
        };
        if kept.iter().any(|old| under(old) == under(&sealed) && old.content != content) {
            self.after.broken.push("C6");
        }
        let key = EpochKey::new(self.after.state.memory[usize::from(vm)]);
        self.seen.push(self.machine.named(sealed).bytes(&key));
        if self.is(STORES_KEY) {
            self.seen.push(key.expose().to_vec());
        }
        self.after.state.kept.push(sealed);
    }

    /// The management side hands a page over, and says itself which one it is.
    fn hand(&mut self, kept: usize, vm: u8) {
        let state = &self.after.state;
        let (kept, runs) = (state.kept[kept], state.runs[usize::from(vm)]);
        let sealed_by = self.machine.key(kept.by, &RootKey::new(ROOT));
        let opens = kept.opens(&sealed_by, &EpochKey::new(state.memory[usize::from(vm)]));
        let resident = kept.stream == Stream::Resident;
        let own = runs.is_none_or(|by| by == kept.by);
        if opens && !(own && resident) {
            self.after.broken.push("F3");
        }
        if opens && state.ended(kept.by) {
            self.after.broken.push("C12");
        }
        self.after.reached.push(match opens {
            true => RETURNED,
            false if kept.by.vm != vm => STRANGE,
            false if !resident => WRONG_STREAM,
            false => ENDED,
        });
    }

    /// The owner, if there still is one, has an image restored: its key is derived again.
    fn restore(&mut self, kept: usize) {
        let kept = self.after.state.kept[kept];
        let key = self.machine.key(kept.by, &RootKey::new(ROOT));
        let image = self.machine.named(kept).bytes(&key);
        if !restores(&RootKey::new(self.after.state.root), &image) {
            self.after.reached.push(OWNERLESS);
            return;
        }
        if self.after.state.ownerless {
            self.after.broken.push("C12");
        }
        self.after.reached.push(RESTORED);
        self.start(kept.by.vm, kept.by.epoch + 1);
    }

    fn destroy(&mut self, vm: u8) {
        let vm = usize::from(vm);
        let key = self.after.state.memory[vm];
        self.after.state.runs[vm] = None;
        self.after.state.destroyed[vm] = true;
        if self.is(KEEPS_KEY) {
            return;
        }
        self.after.state.memory[vm] = [0; 32];
        let freed = if self.is(FREES_KEY) { key } else { *wiped(EpochKey::new(key)).expose() };
        self.seen.push(freed.to_vec());
    }

    /// The trusted side dies. Nobody gets to see what its memory held.
    const fn crash(&mut self) {
        self.after.state.runs = [None; VMS];
        self.after.state.memory = [[0; 32]; VMS];
        self.after.state.crashes += 1;
    }

    fn end_owner(&mut self) {
        self.after.state.ownerless = true;
        if !self.is(KEEPS_ROOT) {
            self.after.state.root = *wiped(RootKey::new(self.after.state.root)).expose();
        }
    }

    /// Looks for keys in what the management side sees.
    fn look(&mut self) {
        if self.seen.is_empty() {
            return;
        }
        let secrets = Secrets::of(&self.after.state.incarnations);
        if self.seen.iter().any(|bytes| secrets.are_in(bytes)) {
            self.after.broken.push("C12");
        }
    }
}

impl Machine {
    /// What an incarnation's keys are derived from: everything, or what a wrong machine takes.
    fn derived(&self, of: Incarnation) -> Incarnation {
        let shares = self.wrong == Some(SHARES_KEYS);
        if shares { Incarnation { vm: 0, salt: 0, ..of } } else { of }
    }

    fn key(&self, of: Incarnation, root: &RootKey) -> EpochKey {
        self.derived(of).key(root)
    }

    /// What is kept, under the names that its reader derives the keys from.
    fn named(&self, kept: Kept) -> Kept {
        Kept { by: self.derived(kept.by), ..kept }
    }
}
