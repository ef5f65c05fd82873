//! What every platform must pass, on the two machines of this crate; and that it can fail.

use sim::config::Config;
use sim::conformance::planted::{Plant, Planted};
use sim::conformance::real::RealBytes;
use sim::conformance::sound::SoundMachine;
use sim::conformance::trace::{Looks, Seen, agree, traces};
use sim::conformance::{ConformingPlatform, draw, suite};
use sim::event::{Event, NoEvent};
use view_core::View;

/// Drawn traces for each machine.
const SEEDS: u64 = 400;

#[test]
fn the_simulated_machine_conforms() {
    assert_eq!(suite(SoundMachine::default), Ok(9));
}

#[test]
fn the_machine_of_real_bytes_conforms() {
    assert_eq!(suite(RealBytes::default), Ok(9));
}

#[test]
fn traces_on_the_simulated_machine_show_the_same() {
    show_the_same(SoundMachine::default);
}

#[test]
fn traces_on_the_machine_of_real_bytes_show_the_same() {
    show_the_same(RealBytes::default);
}

fn show_the_same<P: ConformingPlatform>(fresh: impl FnMut() -> P) {
    let told = traces(SEEDS, fresh).unwrap_or_else(|parted| panic!("{parted}"));
    assert_eq!(told.missed(), [], "nobody ever saw these");
    assert!(told.traces as u64 > SEEDS && told.loads > 50_000 && told.raced > 500, "{told:?}");
    // Where every answer is right nothing is compared.
    assert!(told.raced < told.loads / 20, "{told:?}");
}

#[test]
fn every_error_of_a_platform_is_caught_by_the_suite_and_by_traces() {
    for plant in Plant::ALL {
        caught(plant, SoundMachine::default);
        // It has no caches: what is withdrawn is gone at once.
        if plant != Plant::ForgetsFence {
            caught(plant, RealBytes::default);
        }
    }
}

fn caught<P: ConformingPlatform>(plant: Plant, fresh: fn() -> P) {
    let wrong = || Planted { platform: fresh(), plant };
    assert!(suite(wrong).is_err(), "{plant:?} passes the suite");
    assert!(traces(SEEDS, wrong).is_err(), "{plant:?} passes every trace");
}

#[test]
fn a_trace_is_the_same_each_time_it_is_drawn() {
    let different = (0..20).filter(|seed| draw::drawn(*seed, 40) != draw::drawn(*seed + 1, 40));
    assert_eq!(different.count(), 20);
    assert_eq!(draw::drawn(7, 80), draw::drawn(7, 80));
}

/// The one freedom that a platform has, and that it ends with the fence.
#[test]
fn until_the_fence_a_platform_may_show_a_page_that_was_withdrawn_or_nothing() {
    let config = Config::named("page").expect("published");
    let told = "cpu0 guest store 0:0
        cpu0 begin 0:0 share read never
        cpu0 step
        cpu0 step
        cpu0 management load f0
        cpu0 begin 0:0 unshare
        cpu0 step
        cpu0 management load f0
        cpu0 step
        cpu0 management load f0";
    let told: Result<Vec<Event>, NoEvent> = told.lines().map(str::parse).collect();
    let told = told.expect("events");
    let mut remembers = SoundMachine::default();
    let mut forgets = RealBytes::default();
    let shown = [
        agree(config, &told, Looks::AsTold, &mut remembers),
        agree(config, &told, Looks::AsTold, &mut forgets),
    ]
    .map(|observed| {
        let loads = observed.unwrap_or_else(|parted| panic!("{parted}"));
        let management = loads.iter().filter(|load| load.view == View::Management);
        management.map(|load| (load.seen, load.raced)).collect::<Vec<_>>()
    });
    let open = (Seen::Stored(0), false);
    let closed = (Seen::Nothing, false);
    assert_eq!(shown[0], [open, (Seen::Stored(0), true), closed]);
    assert_eq!(shown[1], [open, (Seen::Nothing, true), closed]);
}
