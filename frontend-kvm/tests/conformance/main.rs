//! The KVM platform under what every platform must pass: a guest that loads and stores on a real
//! vCPU, and a manager that looks through the mapping that managers have.

#[path = "../common/mod.rs"]
mod common;
mod manager;
mod probe;
mod stage;

use common::kvm;
use frontend_kvm::Kvm;
use sim::conformance::planted::{Plant, Planted};
use sim::conformance::suite;
use sim::conformance::trace::{Told, traces};
use stage::Stage;

/// Drawn traces that go through KVM.
const SEEDS: u64 = 300;

#[test]
fn the_kvm_platform_conforms() {
    let Some(kvm) = kvm("the_kvm_platform_conforms") else { return };
    assert_eq!(suite(|| Stage::new(&kvm)), Ok(9));
}

#[test]
fn traces_show_on_kvm_what_they_show_on_the_simulated_machine() {
    let test = "traces_show_on_kvm_what_they_show_on_the_simulated_machine";
    let Some(kvm) = kvm(test) else { return };
    let told = traces(SEEDS, || Stage::new(&kvm)).unwrap_or_else(|parted| panic!("{parted}"));
    let Told { traces, loads, raced, .. } = told;
    assert_eq!(told.missed(), [], "nobody ever saw these");
    assert!(traces as u64 > SEEDS && loads > 40_000 && raced > 500, "{told:?}");
}

#[test]
fn every_error_planted_in_the_kvm_platform_is_caught_by_the_suite() {
    let test = "every_error_planted_in_the_kvm_platform_is_caught_by_the_suite";
    let Some(kvm) = kvm(test) else { return };
    for plant in Plant::ALL {
        assert!(suite(wrong(&kvm, plant)).is_err(), "{plant:?} passes the suite");
    }
}

#[test]
fn every_error_planted_in_the_kvm_platform_is_caught_by_traces() {
    let test = "every_error_planted_in_the_kvm_platform_is_caught_by_traces";
    let Some(kvm) = kvm(test) else { return };
    for plant in Plant::ALL {
        assert!(traces(SEEDS, wrong(&kvm, plant)).is_err(), "{plant:?} passes every trace");
    }
}

fn wrong(kvm: &Kvm, plant: Plant) -> impl FnMut() -> Planted<Stage> {
    move || Planted { platform: Stage::new(kvm), plant }
}
