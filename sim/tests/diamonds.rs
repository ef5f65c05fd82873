//! Partial-order reduction leaves out nothing but transitions whose outcome is found elsewhere.

use sim::config::{CONFIGS, Config};
use sim::diamonds::{Diamonds, Origin};
use sim::event::Event;
use sim::explore::{Hunt, explore};
use sim::resume::resume;
use sim::state::State;
use sim::world::play;

/// What an event makes of a state, what it was seen to do, and what can come after it.
fn after(config: &Config, state: &State, event: Event) -> (State, String, Vec<Event>) {
    resume(config, None, state, |world| {
        world.apply(event);
        let seen = format!("{:?} {:?}", world.just, world.machine.noted);
        (world.state_now(), seen, world.enabled())
    })
}

/// Of an event that is left out after another: where it leads is known, was reached by itself, or
/// is reached in the other order; and without the first it was seen to do the same.
fn is_found_elsewhere(config: &Config, state: &State, events: &[Event], pair: [Event; 2]) {
    let [first, second] = pair;
    let (between, _, _) = after(config, state, first);
    let (outcome, seen, _) = after(config, &between, second);
    let told = || format!("{}: {first}, then {second}, from {state:?}", config.name);
    if outcome == *state {
        return;
    }
    assert!(events.contains(&second), "was not possible before: {}", told());
    let (turned, seen_alone, then) = after(config, state, second);
    assert_eq!(seen, seen_alone, "does something else: {}", told());
    if turned != outcome {
        assert!(then.contains(&first), "is not possible after it: {}", told());
        assert_eq!(after(config, &turned, first).0, outcome, "leads elsewhere: {}", told());
    }
}

/// From every state of random walks through every configuration; and much is left out.
#[test]
fn what_is_left_out_is_found_elsewhere() {
    let mut dice = 0x6a09_e667_f3bc_c908_u64;
    let mut left_out = 0;
    for config in CONFIGS {
        for _ in 0..20 {
            let mut state = play(config, None, config.setup(), |world| world.state_now());
            for _ in 0..40 {
                let events = resume(config, None, &state, |world| world.enabled());
                for first in &events {
                    let (between, _, then) = after(config, &state, *first);
                    let diamonds = Diamonds::of(Origin::of(*first, &between), &between);
                    for second in then.iter().filter(|event| diamonds.found_elsewhere(**event)) {
                        is_found_elsewhere(config, &state, &events, [*first, *second]);
                        left_out += 1;
                    }
                }
                dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let Some(last) = events.len().checked_sub(1) else { break };
                let pick = usize::try_from(dice >> 33).expect("31 bits") % (last + 1);
                state = after(config, &state, events[pick]).0;
            }
        }
    }
    assert!(left_out > 50_000, "{left_out}");
}

/// The same states, as near, with the same promises met; and a tenth fewer events played, at least.
#[test]
fn nothing_is_lost_by_one_order() {
    let mut played = [0, 0];
    for config in CONFIGS.iter().filter(|config| !config.deep) {
        let hunt = Hunt::sound(config);
        let one = explore(&hunt, |_, _| {});
        let all = explore(&Hunt { one_order: false, ..hunt }, |_, _| {});
        let told = |found: &sim::explore::Outcome| {
            (found.distinct_states, found.represented_states, found.transitions, found.depth)
        };
        assert_eq!(told(&one), told(&all), "{}", config.name);
        assert_eq!(one.reached, all.reached, "{}", config.name);
        played = [played[0] + one.played, played[1] + all.played];
    }
    assert!(played[0] * 10 < played[1] * 9, "{played:?}");
}
