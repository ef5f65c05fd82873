//! The simulated machine passes what every frontend must pass.

use sim::conformance::{SoundMachine, suite};

#[test]
fn the_simulated_machine_conforms() {
    assert_eq!(suite(SoundMachine::default), Ok(9));
}
