//! Any events at all, in any order, on a sound machine: every invariant holds, what is refused
//! changes nothing, and real bytes under the shipped cipher agree.

use arbitrary::Arbitrary;

use crate::config::Config;
use crate::event::Event;
use crate::invariant;
use crate::swarm::draw::stray_event;
use crate::swarm::{Budget, LONG, real, roomy};
use crate::world::{World, play};

/// The machines. What is in a corpus names them by number: add at the end.
const SHAPES: [&str; 4] = ["long", "page", "pages", "guests"];

/// Longer runs are the seeds' business.
const EVENTS_MAX: usize = 256;

/// A machine, and what happens.
#[derive(Arbitrary, Debug)]
pub struct Input {
    shape: u8,
    choices: Vec<Choice>,
}

/// One event.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Choice {
    /// One of those that can happen, by its place in their sorted list.
    Enabled(u8),
    /// Any that the machine has the CPUs, pages and frames for.
    Stray(u64),
}

/// Plays it.
///
/// # Panics
/// If an invariant breaks, a refusal changes something, or the real cipher disagrees.
pub fn check(input: &Input) {
    let name = SHAPES[usize::from(input.shape) % SHAPES.len()];
    let config = roomy(Config::named(name).unwrap_or(&LONG));
    let mut events = Vec::new();
    play(&config, None, config.setup(), |world| {
        let mut budget = Budget::default();
        for choice in input.choices.iter().take(EVENTS_MAX) {
            let Some(event) = chosen(world, &config, *choice) else { continue };
            if budget.allows(world, event) {
                budget.count(event);
                events.push(event);
                apply(world, event);
                let broken: Vec<_> = invariant::broken(world, None).collect();
                assert!(broken.is_empty(), "{broken:?} broken\n{}", told(name, &events));
            }
        }
    });
    if let Err(differs) = real::compare(&config, None, events.iter().copied()) {
        panic!("{differs}\n{}", told(name, &events));
    }
}

fn chosen(world: &World<'_>, config: &Config, choice: Choice) -> Option<Event> {
    match choice {
        Choice::Stray(word) => Some(stray_event(config, word)),
        Choice::Enabled(index) => {
            let mut enabled = world.enabled();
            enabled.sort_unstable();
            let index = usize::from(index).checked_rem(enabled.len())?;
            enabled.get(index).copied()
        }
    }
}

/// Lets it happen. An event is also its line of text, and a refusal leaves every row as it was, but
/// for versions.
fn apply(world: &mut World<'_>, event: Event) {
    assert_eq!(event.to_string().parse(), Ok(event));
    let rows = |world: &World<'_>| -> Vec<[u64; 3]> {
        let words = world.config.page_refs().map(|page| world.words(page));
        words.map(|[control, _, low, high]| [control, low, high]).collect()
    };
    let before = rows(world);
    world.apply(event);
    if world.just.refused.is_some() {
        assert_eq!(rows(world), before, "{event} was refused and changed something");
    }
}

fn told(name: &str, events: &[Event]) -> String {
    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    format!("config {name}\n{}", lines.join("\n"))
}
