//! The core and the oracle of spec agree after every event of long walks, and an oracle or a host
//! that is wrong is noticed.

use sim::config::{ALL_ASKS, CONFIGS, Config, PAGE};
use sim::event::{Ask, Event, FaultTime, PageRef};
use sim::lockstep::{Disagreement, Lockstep};
use sim::machine::KNOWN;
use sim::mutant::Mutant;
use sim::world::{World, play};

/// Everything at once: what no exploration can exhaust.
const WIDE: Config = Config {
    name: "wide",
    pages: &[2, 2],
    frames: 4,
    replicas: 1,
    versions: 200,
    stores: 9,
    batches: 2,
    plans: 2,
    drops: 2,
    faults: 1,
    restarts: 1,
    launched: false,
    asks: ALL_ASKS,
    ..PAGE
};

/// Numbers for walks; the same for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let sides = u64::try_from(sides).expect("few");
        usize::try_from((mixed ^ mixed >> 31) % sides).expect("fewer than sides")
    }

    fn small(&mut self, sides: u8) -> u8 {
        u8::try_from(self.roll(sides.into())).expect("fewer than sides")
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

/// What came up in walks: a walk that only ever hears "yes" shows little.
#[derive(Debug, Default)]
struct Met {
    refused: u64,
    committed: u64,
    dropped_half_way: u64,
    faulted: u64,
    forged: u64,
}

impl Met {
    fn note(&mut self, world: &World<'_>) {
        self.refused += u64::from(world.just.refused.is_some());
        self.committed += u64::from(!world.just.committed.is_empty());
        self.dropped_half_way += u64::from(world.just.dropped == Some(true));
        self.faulted += u64::from(world.just.faulted);
        self.forged += u64::from(world.machine.noted.forged);
    }
}

/// Anything that anybody might say, whether or not it makes sense.
fn anything(dice: &mut Dice, config: &Config) -> Event {
    let pages: Vec<PageRef> = config.page_refs().collect();
    let page = dice.pick(&pages);
    let frame = dice.small(config.frames);
    let cpu = dice.small(config.batches);
    let ask = dice.pick(ALL_ASKS);
    let ask = if matches!(ask, Ask::PageIn(_)) { Ask::PageIn(frame) } else { ask };
    let ask = if matches!(ask, Ask::Accept(_)) { Ask::Accept(frame) } else { ask };
    match dice.roll(64) {
        // What ends a VM is rare, or there is nothing but ends.
        0 => Event::Drop(cpu),
        1 => Event::Fault(cpu, dice.pick(&[FaultTime::Early, FaultTime::Late])),
        2..8 => Event::Offer(frame, page),
        8..12 => Event::Retract(frame, page),
        12..20 => Event::LaunchVm(page.vm),
        20..32 => Event::Claim(page),
        32..40 => Event::Join(cpu, page, ask),
        40..56 => Event::Begin(cpu, page, ask),
        _ => Event::Step(cpu),
    }
}

/// Walks; `told` is what the oracle hears of an event, `also` looks at both after it.
fn walk(
    config: &Config,
    mutant: Option<Mutant>,
    seed: u64,
    mut lockstep: Lockstep,
    told: impl Fn(Event) -> Event,
    also: impl Fn(&World<'_>, &Lockstep),
) -> Result<Met, (Event, Disagreement)> {
    play(config, mutant, [], |world| {
        let (mut dice, mut met) = (Dice(seed), Met::default());
        let setup = config.setup().into_iter().map(Some);
        for event in setup.chain((0..400).map(|_| None)) {
            let event = event.unwrap_or_else(|| {
                let enabled = world.enabled();
                let step = Event::Step(dice.small(config.batches));
                match dice.roll(4) {
                    0 => anything(&mut dice, config),
                    1 if enabled.contains(&step) => step,
                    _ if enabled.is_empty() => step,
                    _ => dice.pick(&enabled),
                }
            });
            // These end most of what a walk has built up.
            let ends = matches!(event, Event::Restart | Event::Drop(_) | Event::Fault(..));
            if ends && dice.roll(10) > 0 {
                continue;
            }
            world.apply(event);
            met.note(world);
            lockstep.follow(told(event), world).map_err(|found| (event, found))?;
            also(world, &lockstep);
        }
        Ok(met)
    })
}

/// An oracle that is made from a state is the one that came along.
fn from_the_state(world: &World<'_>, lockstep: &Lockstep) {
    if world.machine.known.len() <= KNOWN {
        assert_eq!(Lockstep::of(world.config, &world.state_now()), *lockstep);
    }
}

fn agrees(config: &Config, seeds: u64) -> Met {
    let mut all = Met::default();
    for seed in 0..seeds {
        let met = walk(config, None, seed, Lockstep::new(config), |event| event, from_the_state);
        let met = met.unwrap_or_else(|(event, found)| {
            panic!("{} from seed {seed}: {event}: {found}", config.name)
        });
        all.refused += met.refused;
        all.committed += met.committed;
        all.dropped_half_way += met.dropped_half_way;
        all.faulted += met.faulted;
        all.forged += met.forged;
    }
    all
}

#[test]
fn the_core_does_what_the_oracle_says_in_every_configuration() {
    for config in CONFIGS {
        let met = agrees(config, 100);
        assert!(met.refused > 100 && met.committed > 100, "{}: {met:?}", config.name);
    }
}

#[test]
fn the_core_does_what_the_oracle_says_when_everything_may_happen() {
    let met = agrees(&WIDE, 2000);
    let all = [met.refused, met.committed, met.dropped_half_way, met.faulted, met.forged];
    assert!(all.into_iter().all(|times| times > 20), "{met:?}");
}

/// What a wrong oracle hears of an event, if anything.
type Tell = fn(Event) -> Option<Event>;

/// In how many walks of 200 a wrong oracle or a wrong host is noticed.
fn noticed(mutant: Option<Mutant>, tell: Tell) -> usize {
    let told = |event| tell(event).unwrap_or(Event::Tick);
    let walks = (0..200)
        .map(|seed| walk(&WIDE, mutant, seed, Lockstep::new(&WIDE), told, |_, _| {}).is_err());
    walks.filter(|differs| *differs).count()
}

#[test]
fn an_oracle_that_is_wrong_is_noticed() {
    assert_eq!(noticed(None, Some), 0);
    let wrong: [(&str, Tell); 5] = [
        ("hears of no drop", |event| (!matches!(event, Event::Drop(_))).then_some(event)),
        ("hears of no retraction", |event| (!matches!(event, Event::Retract(..))).then_some(event)),
        ("hears of no failure", |event| (!matches!(event, Event::Fault(..))).then_some(event)),
        ("takes every plan for the first of its batch", |event| {
            let Event::Join(cpu, page, ask) = event else { return Some(event) };
            Some(Event::Begin(cpu, page, ask))
        }),
        ("seals a page where it is taken out", |event| {
            let Event::Begin(cpu, page, Ask::PageOut) = event else { return Some(event) };
            Some(Event::Begin(cpu, page, Ask::Seal))
        }),
    ];
    for (what, tell) in wrong {
        let times = noticed(None, tell);
        assert!(times > 20, "an oracle that {what} is noticed {times} times");
    }
    let pages = Config::named("pages").expect("published");
    let roomy = Lockstep::new(&Config { replicas: 2, ..*pages });
    let walks =
        (0..200).map(|seed| walk(pages, None, seed, roomy, |event| event, |_, _| {}).is_err());
    let times = walks.filter(|differs| *differs).count();
    assert!(times > 20, "an oracle with a larger pool is noticed {times} times");
}

#[test]
fn a_host_that_is_wrong_in_what_the_oracle_knows_of_is_noticed() {
    for mutant in [Mutant::TrustsClaim, Mutant::ForgetsPlan] {
        let times = noticed(Some(mutant), Some);
        assert!(times > 20, "{mutant:?} is noticed {times} times");
    }
}
