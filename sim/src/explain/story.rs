//! A trace as a list of steps: what happened, who saw what, and what does not hold afterwards.

use view_core::{Copies, PageState, Perm, View, VmNumber};

use super::look::{Look, Via};
use super::rehearsal::{Call, Kind, calls};
use super::words::{bytes_word, sentence, state_word, view_word};
use crate::bytes::{Bytes, Label};
use crate::config::Config;
use crate::event::{Ask, Event, PageRef, Phys, Term};
use crate::invariant;
use crate::machine::{CPUS, Install, Tlb};
use crate::mutant::Mutant;
use crate::trace::Trace;
use crate::world::play;

/// Some access to memory, and what it showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) by_guest: bool,
    pub(super) at: Phys,
    pub(super) bytes: Bytes,
}

/// What came of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) words: String,
    /// Whether a sound machine would not have done so.
    pub(super) is_wrong: bool,
}

/// A batch under way on a CPU.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) cpu: usize,
    pub(super) asks: Vec<(PageRef, Ask)>,
    pub(super) calls: Vec<Call>,
    pub(super) taken: usize,
    /// How it ended, if the event ended it.
    pub(super) fate: Option<&'static str>,
}

/// One event and the moment after it. The first step has none: it is where the trace begins.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) event: Option<Event>,
    pub(super) words: String,
    /// The call to the platform that it made, or tried to make.
    pub(super) call: Option<String>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) sight: Option<Sight>,
    pub(super) flights: Vec<Flight>,
    pub(super) look: Look,
    pub(super) broken: Vec<&'static str>,
}

/// Every step of a trace, from its start on.
pub(super) fn steps(trace: &Trace) -> Vec<Step> {
    let mut events = trace.config.setup();
    let setup = events.len();
    events.extend(&trace.events);
    let mutant = trace.mutant.map(|entry| entry.mutant);
    let moments = moments(trace.config, mutant, &events, setup);
    let mut teller = Teller::new(trace.config, mutant, &events);
    let mut steps: Vec<Step> = Vec::new();
    for (index, (look, broken)) in moments.into_iter().enumerate() {
        let step = match steps.last() {
            None => Step {
                event: None,
                words: beginning(trace.config),
                call: None,
                outcomes: Vec::new(),
                sight: None,
                flights: Vec::new(),
                look,
                broken,
            },
            Some(before) => teller.tell(setup + index - 1, &before.look, look, broken),
        };
        steps.push(step);
    }
    steps
}

fn moments(
    config: &Config,
    mutant: Option<Mutant>,
    events: &[Event],
    setup: usize,
) -> Vec<(Look, Vec<&'static str>)> {
    let (before, told) = events.split_at(setup);
    play(config, mutant, before.iter().copied(), |world| {
        let mut moments = vec![(Look::at_world(world), invariant::broken(world, None).collect())];
        for event in told {
            world.apply(*event);
            moments.push((Look::at_world(world), invariant::broken(world, None).collect()));
        }
        moments
    })
}

fn beginning(config: &Config) -> String {
    if config.launched {
        "Before the first event: every page was accepted and wiped, and its guest runs.".to_owned()
    } else {
        "Before the first event: the host has started, and no page has a frame yet.".to_owned()
    }
}

/// What has to be remembered from event to event: which batch is on which CPU.
struct Teller<'a> {
    config: &'a Config,
    mutant: Option<Mutant>,
    events: &'a [Event],
    flights: [Option<(Flight, Vec<usize>)>; CPUS],
}

impl<'a> Teller<'a> {
    const fn new(config: &'a Config, mutant: Option<Mutant>, events: &'a [Event]) -> Self {
        Self { config, mutant, events, flights: [const { None }; CPUS] }
    }

    fn tell(&mut self, at: usize, before: &Look, look: Look, broken: Vec<&'static str>) -> Step {
        let event = self.events[at];
        let call = self.call_of(event);
        self.follow(at, event, before, &look);
        let flights = self.flights.iter().flatten().map(|(flight, _)| flight.clone()).collect();
        self.forget_ended();
        Step {
            event: Some(event),
            words: self.words(event, call.as_ref(), before, &look),
            outcomes: outcomes(event, call.as_ref(), before, &look),
            sight: sight(event, before, &look),
            call: self.call_words(event, call, before),
            flights,
            look,
            broken,
        }
    }

    /// The call that a step is about to make; `None` if it has none left.
    fn call_of(&self, event: Event) -> Option<Call> {
        let (Event::Step(cpu) | Event::Fault(cpu, _)) = event else { return None };
        let (flight, _) = self.flights[usize::from(cpu)].as_ref()?;
        flight.calls.get(flight.taken).cloned()
    }

    fn call_words(&self, event: Event, call: Option<Call>, before: &Look) -> Option<String> {
        let (Event::Step(cpu) | Event::Fault(cpu, _)) = event else { return None };
        let commits = || before.flights[usize::from(cpu)].map(|_| "commit".to_owned());
        call.map(|call| call.words).or_else(commits)
    }

    /// Keeps the list of batches as the world has it.
    fn follow(&mut self, at: usize, event: Event, before: &Look, look: &Look) {
        for (flight, now) in self.flights.iter_mut().zip(look.flights) {
            if let (Some((flight, _)), None) = (flight, now) {
                flight.fate = Some(fate(event, look));
            }
        }
        if let Event::Step(cpu) | Event::Fault(cpu, _) = event
            && !look.just.faulted
        {
            return self.advance(usize::from(cpu), look);
        }
        let Some((cpu, page, ask)) = asked(event) else { return };
        let cpu = usize::from(cpu);
        if look.plans[cpu] > before.plans[cpu] {
            self.plan(at, cpu, page, ask);
        }
    }

    fn forget_ended(&mut self) {
        for flight in &mut self.flights {
            let _ = flight.take_if(|(flight, _)| flight.fate.is_some());
        }
    }

    /// The batch on this CPU has one plan more: its calls are found out anew.
    fn plan(&mut self, at: usize, cpu: usize, page: PageRef, ask: Ask) {
        let flight = Flight { cpu, asks: Vec::new(), calls: Vec::new(), taken: 0, fate: None };
        let (mut flight, mut begun) = self.flights[cpu].take().unwrap_or((flight, Vec::new()));
        flight.asks.push((page, ask));
        // What the batch itself did so far is left out: it is decided again as a whole.
        let others = (0..at).filter(|index| !begun.contains(index));
        let others: Vec<Event> = others.map(|index| self.events[index]).collect();
        flight.calls = calls(self.config, self.mutant, &others, &flight.asks).unwrap_or_default();
        begun.push(at);
        self.flights[cpu] = Some((flight, begun));
    }

    fn advance(&mut self, cpu: usize, look: &Look) {
        let Some((flight, _)) = &mut self.flights[cpu] else { return };
        if let Some(Call { kind: Kind::Open(pages), .. }) = flight.calls.get(flight.taken) {
            let granted = self.mutant.is_some_and(Mutant::grants_forged);
            let genuine =
                |page: &PageRef| granted || look.noted.installs.iter().any(|at| at.page == *page);
            let forged: Vec<PageRef> =
                pages.iter().copied().filter(|page| !genuine(page)).collect();
            // What is not genuine is granted to nobody.
            flight.calls.retain(
                |call| !matches!(&call.kind, Kind::Grant(page, _) if forged.contains(page)),
            );
        }
        flight.taken += 1;
    }

    fn words(&self, event: Event, call: Option<&Call>, before: &Look, look: &Look) -> String {
        let said = sentence(event);
        match (event, call) {
            (Event::Step(cpu), Some(call)) => format!("CPU {cpu} takes a step: {}.", call.words),
            (Event::Fault(_, _), Some(call)) => format!("{said}. The step was: {}.", call.words),
            (Event::Step(cpu) | Event::Fault(cpu, _), None)
                if before.flights[usize::from(cpu)].is_some() =>
            {
                format!("CPU {cpu} has taken every step and commits.")
            }
            (Event::Begin(cpu, ..) | Event::Join(cpu, ..), _) => {
                let cpu = usize::from(cpu);
                if look.plans[cpu] > before.plans[cpu] {
                    let joins = if before.plans[cpu] > 0 { "adds it to its" } else { "begins a" };
                    format!("{said}. CPU {cpu} claims the page, decides, and {joins} batch.")
                } else {
                    format!("{said}.")
                }
            }
            _ => format!("{said}."),
        }
    }
}

/// How a batch ended that is not there any more.
fn fate(event: Event, look: &Look) -> &'static str {
    if look.just.faulted {
        "failed"
    } else if let Event::Step(_) = event {
        "committed"
    } else {
        "dropped"
    }
}

/// What an event asks the core for, and on which CPU.
const fn asked(event: Event) -> Option<(u8, PageRef, Ask)> {
    if let Event::Begin(cpu, page, ask) | Event::Join(cpu, page, ask) = event {
        Some((cpu, page, ask))
    } else if let Event::Claim(page) = event {
        // Only a wrong frontend listens, and this is what it hears.
        Some((0, page, Ask::Share(Perm::Read, Term::Never)))
    } else {
        None
    }
}

const fn is_access(event: Event) -> bool {
    use Event::{GuestLoad, GuestStore, ManageLoad, ManageStore};
    matches!(event, GuestLoad(..) | GuestStore(..) | ManageLoad(..) | ManageStore(..))
}

/// What a load or a store reached. It is judged by what there was before, as the CPU did.
fn sight(event: Event, before: &Look, look: &Look) -> Option<Sight> {
    let by = |cpu: u8| Via::Cpu(usize::from(cpu));
    if let Event::GuestLoad(cpu, page) | Event::GuestStore(cpu, page) = event {
        let found = before.guest(page, by(cpu)).or(before.guest(page, Via::Table));
        let at = found.filter(|_| before.vm(page.vm).runs)?;
        Some(Sight { by_guest: true, at, bytes: look.bytes(at) })
    } else if let Event::ManageLoad(cpu, at) | Event::ManageStore(cpu, at) = event {
        before.host(at, by(cpu)).or(before.host(at, Via::Table))?;
        Some(Sight { by_guest: false, at, bytes: look.bytes(at) })
    } else {
        None
    }
}

fn outcomes(event: Event, call: Option<&Call>, before: &Look, look: &Look) -> Vec<Outcome> {
    let mut said = Vec::new();
    let mut say = |words: String, is_wrong: bool| said.push(Outcome { words, is_wrong });
    if let Some(refused) = look.just.refused {
        say(format!("The core refuses: {refused}."), false);
    }
    if let Some((words, is_leak)) = seen(event, before, look) {
        say(words, is_leak);
    }
    if let (Some(call), Event::Step(_)) = (call, event)
        && let Some(words) = undone(call, before, look)
    {
        say(words, true);
    }
    for (seal, known) in &look.noted.seals {
        let again = if known.version { ", under a version that was used before" } else { "" };
        let words = format!("A seal is made, {}{again}; the management side keeps it.", seal.label);
        say(words, known.version);
    }
    for install in &look.noted.installs {
        let (words, is_wrong) = installed(install);
        say(words, is_wrong);
    }
    if look.noted.forged {
        say("Not genuine: nobody is given the page, and its VM will stop.".to_owned(), false);
    }
    match look.just.dropped {
        Some(true) => say("Steps had been taken, so its pages are poisoned.".to_owned(), false),
        Some(false) => say("No step had been taken, so its pages are as before.".to_owned(), false),
        None => {}
    }
    if look.just.faulted {
        say("The core closes every page that had begun, and poisons it.".to_owned(), false);
    }
    for (page, _, state) in &look.just.committed {
        say(committed(*page, *state), false);
    }
    if said.is_empty() && is_idle(event, before, look) {
        said.push(Outcome { words: "Nothing happens.".to_owned(), is_wrong: false });
    }
    said
}

fn installed(install: &Install) -> (String, bool) {
    let expected = Label::new(VmNumber(u16::from(install.page.vm)), &install.id);
    let (got, from) = (bytes_word(install.got), bytes_word(install.from));
    let is_right = match install.from {
        Bytes::Sealed(seal) => seal.label == expected && Bytes::Plain(seal.inner) == install.got,
        Bytes::Plain(_) => false,
    };
    let page = install.page;
    let words = format!(
        "Opened as genuine in page {page}: {from}, where the table expects {expected}. \
         It holds {got} now."
    );
    (words, !is_right)
}

fn committed(page: PageRef, state: PageState) -> String {
    format!("The table says from now on: page {page} is {}.", state_word(state))
}

/// What an access showed, and whether it showed a secret to the management side.
fn seen(event: Event, before: &Look, look: &Look) -> Option<(String, bool)> {
    let Some(sight) = sight(event, before, look) else {
        let words = || ("It does not get there: nothing happens.".to_owned(), false);
        return is_access(event).then(words);
    };
    let who = if sight.by_guest { "The guest" } else { "The management side" };
    let wrote = look.just.stored.is_some() || look.just.wrote.is_some();
    if let (Event::ManageStore(..), false) = (event, wrote) {
        return Some((format!("It may only read {}: nothing is written.", sight.at), false));
    }
    let words = if wrote {
        format!("{} holds now: {}.", sight.at, bytes_word(sight.bytes))
    } else {
        format!("{who} sees what {} holds: {}.", sight.at, bytes_word(sight.bytes))
    };
    Some((words, !sight.by_guest && sight.bytes.is_secret()))
}

/// Where a platform says that a call is done and it is not.
fn undone(call: &Call, before: &Look, look: &Look) -> Option<String> {
    let yet = match &call.kind {
        Kind::Fetch | Kind::Open(_) | Kind::Grant(_, View::Management) => return None,
        Kind::Fence => {
            let remembers = |cpu: &usize| look.tlbs[*cpu] != Tlb::default();
            let cpus = (0..look.tlbs.len()).filter(remembers);
            let cpus: Vec<String> = cpus.map(|cpu| format!("CPU {cpu}")).collect();
            (!cpus.is_empty()).then(|| format!("{} still remembers", cpus.join(" and ")))
        }
        Kind::Withdraw(page, view) => {
            let look_at = before.page(*page);
            let mut places = look_at.frame.into_iter().chain(look_at.replica);
            let left = match view {
                View::Owner => look.guest(*page, Via::Table).is_some(),
                View::Management => places.any(|place| look.host(place, Via::Table).is_some()),
            };
            left.then(|| format!("{} has page {page} mapped", view_word(*view)))
        }
        Kind::Seal(pages) => {
            let replicas = pages.iter().filter_map(|page| look.page(*page).replica);
            let plain = |place: &Phys| matches!(look.bytes(*place), Bytes::Plain(_));
            let left = replicas.into_iter().find(plain);
            left.map(|place| format!("{place} holds {}", bytes_word(look.bytes(place))))
        }
        Kind::Scrub(frame, copies) => {
            // To wipe a replica is to leave the page itself alone.
            let due = if *copies == Copies::Replica { before.bytes(*frame) } else { Bytes::ZERO };
            let holds = look.bytes(*frame);
            (holds != due).then(|| format!("{frame} holds {}", bytes_word(holds)))
        }
        Kind::Grant(page, View::Owner) => {
            let elsewhere = look.guest(*page, Via::Table).filter(|at| !look.owns(*page, *at));
            elsewhere.map(|at| format!("the guest finds page {page} in {at}"))
        }
    };
    yet.map(|yet| format!("That is reported as done, and yet {yet}."))
}

/// Whether an event that can do nothing did nothing.
fn is_idle(event: Event, before: &Look, look: &Look) -> bool {
    match event {
        Event::Step(cpu) | Event::Drop(cpu) | Event::Fault(cpu, _) => {
            before.flights[usize::from(cpu)].is_none()
        }
        Event::Begin(cpu, ..) | Event::Join(cpu, ..) => {
            look.plans[usize::from(cpu)] == before.plans[usize::from(cpu)]
        }
        Event::Claim(_) => look.plans == before.plans,
        Event::Offer(number, _) | Event::Retract(number, _) => {
            let owner = |at: &Look| at.place(Phys::Frame(number)).and_then(|look| look.owner);
            owner(before) == owner(look)
        }
        Event::ManageMap(number) => look.host(Phys::Frame(number), Via::Table).is_none(),
        Event::LaunchVm(vm) => before.vm(vm) == look.vm(vm),
        Event::Restart => before.life == look.life,
        Event::Tick => before.ticked,
        Event::Hand(page, _) => before.page(page).handed == look.page(page).handed,
        Event::GuestLoad(..)
        | Event::GuestStore(..)
        | Event::ManageLoad(..)
        | Event::ManageStore(..) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CONFIGS;
    use crate::mutant::MUTANTS;

    /// Walks that differ by `stride`, through what may come next.
    fn walk(config: &'static Config, mutant: Option<usize>, stride: usize) -> Trace {
        let mutant = mutant.map(|index| &MUTANTS[index]);
        let wrong = mutant.map(|entry| entry.mutant);
        let events = play(config, wrong, config.setup(), |world| {
            let mut events = Vec::new();
            for turn in 0..80 {
                let next = world.enabled();
                // Batches come first in the list: every other turn is one of them.
                let among = if turn % 2 == 0 { next.len().min(4) } else { next.len() };
                let Some(event) = next.get(turn * stride % among.max(1)) else { break };
                world.apply(*event);
                events.push(*event);
            }
            events
        });
        Trace { config, mutant, breaks: Vec::new(), events }
    }

    #[test]
    fn a_batch_takes_the_steps_that_were_foretold() {
        let (mut committed, mut failed, mut joined) = (0, 0, 0);
        let mutants = [None].into_iter().chain((0..MUTANTS.len()).map(Some));
        for (mutant, config) in mutants.flat_map(|one| CONFIGS.iter().map(move |of| (one, of))) {
            for stride in [3, 5, 7] {
                let trace = walk(config, mutant, stride);
                for step in steps(&trace) {
                    let at = step.event.map(|event| event.to_string());
                    joined += usize::from(step.flights.iter().any(|flight| flight.asks.len() > 1));
                    for flight in &step.flights {
                        let now = step.look.flights[flight.cpu].map(usize::from);
                        match flight.fate {
                            None => assert_eq!(Some(flight.taken), now, "{trace}{at:?}"),
                            Some("committed") => {
                                assert_eq!(flight.taken, flight.calls.len() + 1, "{trace}{at:?}");
                                committed += 1;
                            }
                            Some(_) => failed += 1,
                        }
                    }
                }
            }
        }
        assert!(committed > 1000 && failed > 50 && joined > 20, "{committed} {failed} {joined}");
    }

    #[test]
    fn a_sound_machine_is_never_said_to_do_wrong() {
        for (config, stride) in CONFIGS.iter().flat_map(|config| [(config, 3), (config, 11)]) {
            for step in steps(&walk(config, None, stride)) {
                let wrong = step.outcomes.iter().find(|outcome| outcome.is_wrong);
                assert_eq!(wrong, None, "{:?}", step.event);
            }
        }
    }
}
