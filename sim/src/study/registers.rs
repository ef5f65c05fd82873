//! A CPU that stops for every reason there is, and a manager that changes what it was shown before
//! it lets the CPU go on: any register in any part, the next instruction or another one.

pub mod names;

use std::fmt;

use view_core::registers::{Exit, Registers, accept, masks, show};

use super::{After, Claim, Model, Study, Wrong, explore};
use names::{Stop, stops};

/// The study.
pub(super) const STUDY: Study = Study {
    name: "registers",
    purpose: "what shows of a CPU that stopped, and what it goes on with",
    bounds: "every exit, operands of every size, addresses of 0 to 2 registers; 1 register changed",
    claims: &[
        Claim {
            id: "C9",
            sentence: "Of a CPU that stopped the management side sees the registers that \
                       register-masks.md names for that exit, and zeroes elsewhere.",
        },
        Claim {
            id: "I8",
            sentence: "A CPU goes on with the registers that it stopped with, except for the \
                       results that register-masks.md names for that exit, and those only when \
                       it goes on at the next instruction.",
        },
    ],
    wrongs: &[
        Wrong {
            name: "halt-shows-all",
            sentence: "a CPU that halts shows all its registers",
            caught_by: &["C9"],
        },
        Wrong {
            name: "out-shows-rax",
            sentence: "the whole of rax shows, whatever part of it goes to a port",
            caught_by: &["C9"],
        },
        Wrong {
            name: "shows-extended",
            sentence: "what stands for XMM and its like shows at a load from a device",
            caught_by: &["C9"],
        },
        Wrong {
            name: "accepts-all",
            sentence: "the CPU goes on with whatever comes back",
            caught_by: &["I8"],
        },
        Wrong {
            name: "merges-changes",
            sentence: "what was hidden is put back, and every other change is taken",
            caught_by: &["I8"],
        },
        Wrong {
            name: "rip-unchecked",
            sentence: "the next instruction is where the management side says",
            caught_by: &["I8"],
        },
        Wrong {
            name: "results-without-step",
            sentence: "results are taken though the instruction is still to be carried out",
            caught_by: &["I8"],
        },
        Wrong {
            name: "keeps-upper-half",
            sentence: "a result of 32 bits leaves the upper half of its register as it was",
            caught_by: &["I8"],
        },
    ],
    reaches: &[
        "a result is taken",
        "an instruction is not carried out",
        "a change is refused",
        "another instruction is refused",
    ],
    explore: |wanted| explore(&Machine::new(wanted.wrong), wanted),
};

/// Where the manager says that the CPU goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Rip {
    #[default]
    AsShown,
    Next,
    Elsewhere,
}

/// Why the CPU stopped, by number, and what the manager changed: a bit of a register, and `rip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    stop: Option<usize>,
    change: Option<(usize, u32)>,
    rip: Rip,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Stop(usize, Exit),
    Change(usize, u32),
    Point(Rip),
    GoOn,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop(_, exit) => write!(f, "the CPU stops: {exit:?}"),
            Self::Change(register, bit) => {
                write!(f, "the manager flips bit {bit} of {}", Registers::NAMES[*register])
            }
            Self::Point(rip) => write!(f, "the manager points rip at {rip:?}"),
            Self::GoOn => f.write_str("the CPU goes on"),
        }
    }
}

/// In each part of a register that has a name, and at its end.
const FLIPS: [u32; 6] = [0, 9, 17, 25, 33, 63];
const NEXT: u64 = 0x2222_2222_2222_2224;
const ELSEWHERE: u64 = 0x4141_4141_4141_4141;

struct Machine {
    wrong: Option<&'static str>,
    /// Each exit, and what shows and what may change as the table has it.
    stops: Vec<(Stop, [Registers; 2])>,
    kept: Registers,
}

impl Model for Machine {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State::default()
    }

    fn events(&self, state: &State) -> Vec<Event> {
        if state.stop.is_none() {
            let stops = self.stops.iter().enumerate();
            return stops.map(|(number, (stop, _))| Event::Stop(number, stop.exit)).collect();
        }
        let mut events = vec![Event::GoOn];
        if state.change.is_none() && state.rip == Rip::AsShown {
            events.extend([Rip::Next, Rip::Elsewhere].map(Event::Point));
        }
        if state.change.is_none() && state.rip != Rip::Elsewhere {
            let registers = (0..Registers::NAMES.len()).filter(|at| Registers::NAMES[*at] != "rip");
            events.extend(registers.flat_map(|at| FLIPS.map(|bit| Event::Change(at, bit))));
        }
        events
    }

    fn apply(&self, state: &State, event: Event) -> After<State> {
        let mut after = After { state: *state, ..After::default() };
        match event {
            Event::Stop(number, _) => {
                after.state.stop = Some(number);
                let (stop, [shows, _]) = &self.stops[number];
                let shown = self.show(stop.exit);
                let mut words = shown.words().iter().zip(self.kept.words()).zip(shows.words());
                if words.any(|((shown, kept), shows)| *shown != kept & shows) {
                    after.broken.push("C9");
                }
            }
            Event::Change(register, bit) => after.state.change = Some((register, bit)),
            Event::Point(rip) => after.state.rip = rip,
            Event::GoOn => self.go_on(&mut after),
        }
        after
    }
}

impl Machine {
    fn new(wrong: Option<&'static str>) -> Self {
        let mut kept = Registers::ZERO;
        // Every bit of every register is set, so that none can show unseen; all but where it is.
        kept.words_mut().fill(u64::MAX);
        kept.rip = NEXT - 2;
        let stops = stops().into_iter().map(|stop| (stop, [1, 2].map(|cell| stop.cell(cell))));
        Self { wrong, stops: stops.collect(), kept }
    }

    fn is(&self, wrong: &str) -> bool {
        self.wrong == Some(wrong)
    }

    fn show(&self, exit: Exit) -> Registers {
        let mut shown = show(exit, &self.kept);
        if self.is("halt-shows-all") && exit == Exit::Halt {
            shown = self.kept.clone();
        }
        if self.is("out-shows-rax") && matches!(exit, Exit::PortOut(_)) {
            shown.rax = self.kept.rax;
        }
        if self.is("shows-extended") && matches!(exit, Exit::MmioRead { .. }) {
            shown.extended = self.kept.extended;
        }
        shown
    }

    /// What the manager hands back, and what becomes of it.
    fn go_on(&self, after: &mut After<State>) {
        let State { stop, change, rip } = after.state;
        after.state = State::default();
        let Some((stop, [shows, results])) = stop.map(|number| &self.stops[number]) else { return };
        let mut returned = self.show(stop.exit);
        if let Some((register, bit)) = change {
            returned.words_mut()[register] ^= 1 << bit;
        }
        returned.rip = [returned.rip, NEXT, ELSEWHERE][rip as usize];
        match self.accept(stop.exit, &returned) {
            Some(entered) => {
                if self.is_other_than(&entered, shows, results, &returned) {
                    after.broken.push("I8");
                }
                after.reached.push(match rip {
                    Rip::Next => "a result is taken",
                    Rip::AsShown | Rip::Elsewhere => "an instruction is not carried out",
                });
            }
            None if rip == Rip::Elsewhere => after.reached.push("another instruction is refused"),
            None => after.reached.push("a change is refused"),
        }
    }

    /// Whether the CPU goes on with anything else than the table says.
    fn is_other_than(
        &self,
        entered: &Registers,
        shows: &Registers,
        results: &Registers,
        returned: &Registers,
    ) -> bool {
        let moved = results.rip != 0 && returned.rip == NEXT;
        let rows = self.kept.words().iter().zip(shows.words()).zip(results.words());
        let words = entered.words().iter().zip(returned.words());
        rows.zip(words).any(|(((kept, shows), result), (entered, returned))| {
            let result = if moved { *result } else { 0 };
            let upper = if result == 0xffff_ffff { !result } else { 0 };
            let hidden = *entered & !(result | upper) != kept & !(result | upper);
            let changed = (returned ^ kept & shows) & !result != 0;
            hidden || changed || *entered & (result | upper) != returned & result
        })
    }

    /// The shipped core, or what stands in for it in a machine that is wrong.
    fn accept(&self, exit: Exit, returned: &Registers) -> Option<Registers> {
        let results = masks(exit).result;
        if self.is("accepts-all") {
            return Some(returned.clone());
        }
        if self.is("merges-changes") {
            return self.merged(exit, returned);
        }
        if self.is("rip-unchecked") && results.rip != 0 && returned.rip != 0 {
            return accept(exit, returned.rip, &self.kept, returned).ok();
        }
        if self.is("results-without-step") && returned.rip == 0 && results.rip != 0 {
            let entered = accept(exit, 0, &self.kept, returned).ok();
            return entered.map(|mut entered| {
                entered.rip = self.kept.rip;
                entered
            });
        }
        let entered = accept(exit, NEXT, &self.kept, returned).ok();
        entered.map(|mut entered| {
            if self.is("keeps-upper-half") {
                let words = entered.words_mut().iter_mut().zip(self.kept.words());
                words.zip(results.words()).for_each(|((word, kept), result)| {
                    *word |= if *result == 0xffff_ffff { kept & !result } else { 0 };
                });
            }
            entered
        })
    }

    /// Hidden bits as they were kept, all others as they came back, and `rip` as it should be.
    fn merged(&self, exit: Exit, returned: &Registers) -> Option<Registers> {
        let shown = show(exit, &self.kept);
        let mut clean = shown.clone();
        clean.rip = returned.rip;
        let mut entered = accept(exit, NEXT, &self.kept, &clean).ok()?;
        let words = entered.words_mut().iter_mut().zip(shown.words()).zip(returned.words());
        words.enumerate().filter(|(at, _)| Registers::NAMES[*at] != "rip").for_each(
            |(_, ((word, shown), returned))| {
                *word ^= shown ^ returned;
            },
        );
        Some(entered)
    }
}
