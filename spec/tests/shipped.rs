//! No core that is wrong on purpose is in what is built without being asked for.

use std::path::Path;
use std::process::Command;

/// What the core is built with, by whom, when every package is built from these kinds of edges.
fn features(edges: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--offline", "--invert", "view-core"])
        .args(["--edges", edges, "--prefix", "none"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    String::from_utf8(output.stdout).expect("text")
}

const WRONG: &str = "view-core feature \"wrong-cores\"";

#[test]
fn wrong_cores_are_compiled_for_tests_of_sim_only() {
    let shipped = features("features,normal,build");
    for user in ["sim v", "frontend-kvm v", "benches v"] {
        assert!(shipped.lines().any(|line| line.starts_with(user)), "{user}: {shipped}");
    }
    assert!(!shipped.contains(WRONG), "{shipped}");
    assert!(features("features,normal,build,dev").contains(WRONG), "not even tests have them");
}
