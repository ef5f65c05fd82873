//! A run goes on from a state as it would have gone on without: the way explorations take.

use sim::config::{CONFIGS, Config};
use sim::event::Event;
use sim::resume::resume;
use sim::state::State;
use sim::world::{play, roam};

/// Every state within so many events, and from each of them what the next events lead to.
fn goes_on(name: &str, steps: usize) {
    let config = CONFIGS.iter().find(|config| config.name == name).expect("published");
    let mut seed = 0x9e37_79b9_u64;
    for _ in 0..60 {
        let mut trace: Vec<Event> = config.setup();
        for _ in 0..steps {
            let (state, events) = play(config, None, trace.iter().copied(), |world| {
                (world.state_now(), world.enabled())
            });
            let (again, same_events) =
                resume(config, None, &state, |world| (world.state_now(), world.enabled()));
            assert_eq!(state, again, "{name}: {trace:?}");
            assert_eq!(events, same_events, "{name}: {trace:?}");
            if events.is_empty() {
                break;
            }
            for event in &events {
                let after = |played: &mut sim::world::World<'_>| -> State {
                    played.apply(*event);
                    played.state_now()
                };
                let told = play(config, None, trace.iter().copied(), after);
                let resumed = resume(config, None, &state, after);
                assert_eq!(told, resumed, "{name}: {trace:?} then {event}");
            }
            to_and_fro(config, &state, &events);
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let pick = usize::try_from(seed >> 33).expect("31 bits") % events.len();
            trace.push(events[pick]);
        }
    }
}

/// One run tries every event and goes back after each: twice, so that what it goes back to is
/// where it was.
fn to_and_fro(config: &Config, state: &State, events: &[Event]) {
    roam(config, None, |world| {
        // From elsewhere.
        events.iter().for_each(|event| world.apply(*event));
        let mark = world.mark_at(state);
        for event in events.iter().chain(events) {
            let expected = resume(config, None, state, |world| {
                world.apply(*event);
                (world.state_now(), world.enabled())
            });
            world.apply(*event);
            let mut short = *state;
            world.take_after(&mark, *event, &mut short);
            assert_eq!((world.state_now(), world.enabled()), expected, "{}: {event}", config.name);
            assert_eq!(short, expected.0, "{}: {event}", config.name);
            world.back(&mark, *event);
            assert_eq!(world.state_now(), *state, "{}: back from {event}", config.name);
            assert_eq!(world.enabled(), events, "{}: back from {event}", config.name);
        }
    });
}

#[test]
fn from_any_state_a_run_goes_on_as_it_would_have() {
    for config in CONFIGS {
        goes_on(config.name, 40);
    }
}
