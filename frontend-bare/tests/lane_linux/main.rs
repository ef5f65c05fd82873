//! An unmodified Debian kernel hosts two guests that keep secrets, and is searched for them.
//!
//! The same Linux, guests, scanner and attacks run twice: with nothing beneath Linux, where every
//! route must lead to the secrets and every attack must succeed, or the search proves nothing; and
//! with the monitor beneath it, where none may.

#[expect(dead_code, unreachable_pub, reason = "most of it is the VMM's and the guest's")]
#[path = "../../../frontend-kvm/src/plain/abi.rs"]
mod abi;
mod archive;
mod boot;
mod costs;
mod made;
mod packages;
#[expect(dead_code, reason = "most of it is the guest's and the scanner's")]
#[path = "../../../frontend-kvm/lane/secrets.rs"]
mod secrets;
mod transcript;
mod verdict;

use std::io::Write;

use boot::{Beneath, Play, Said};
use packages::Packages;
use transcript::Transcript;

/// The Debian packages, or none if the lane can't run here: that is said, and a failure if it must
/// not be.
fn packages(test: &str) -> Option<&'static Packages> {
    let required = std::env::var("PAGEVEIL_REQUIRE").unwrap_or_default();
    let required = required.split(',').any(|name| name == "qemu");
    match boot::is_possible().and_then(|()| packages::unpacked()) {
        Ok(packages) => Some(packages),
        Err(why) => {
            assert!(!required, "{test} must not be skipped: {why}");
            tell(&format!("skipped: {test}: {why}\n"));
            None
        }
    }
}

/// Says something where no harness hides it.
fn tell(line: &str) {
    std::io::stderr().write_all(line.as_bytes()).expect("stderr");
}

/// Which CPU QEMU plays where nothing depends on it.
const CPU: &str = "EPYC";

/// Boots Linux on this and judges what it says.
fn judge(test: &str, cpu: &str, beneath: Beneath) {
    let Some(packages) = packages(test) else { return };
    let Said { facts, console } = boot::boot(packages, cpu, beneath, Play::Everything);
    let transcript = Transcript::parse(&facts, &console);
    let complaints = verdict::complaints(&transcript, beneath);
    tell(&format!("{cpu}, {beneath:?} beneath Linux: {}\n", transcript.summary()));
    assert!(complaints.is_empty(), "{facts}\n{console}\n{complaints:#?}");
    let levels = if cpu == CPU { 4 } else { 5 };
    let said = transcript.says(&format!("stage: tables of {levels} levels"));
    assert!(said, "{cpu} has not {levels} levels: {facts}");
}

#[test]
#[ignore = "needs QEMU and Debian's packages"]
fn with_nothing_beneath_linux_every_route_leads_to_the_secrets() {
    judge("with_nothing_beneath_linux_every_route_leads_to_the_secrets", CPU, Beneath::Nothing);
}

#[test]
#[ignore = "needs QEMU and Debian's packages"]
fn with_the_monitor_beneath_linux_no_route_leads_to_a_secret() {
    judge("with_the_monitor_beneath_linux_no_route_leads_to_a_secret", CPU, Beneath::Monitor);
}

/// With five levels of page tables Linux has tables of five levels for guests as well.
#[test]
#[ignore = "needs QEMU and Debian's packages"]
fn neither_does_one_where_tables_have_five_levels() {
    judge("neither_does_one_where_tables_have_five_levels", "max", Beneath::Monitor);
}

#[test]
#[ignore = "needs QEMU and Debian's packages"]
fn the_monitor_costs_as_many_instructions_as_it_did() {
    let Some(packages) = packages("the_monitor_costs_as_many_instructions_as_it_did") else {
        return;
    };
    let mut now = costs::Costs::new();
    for beneath in [Beneath::Nothing, Beneath::Monitor] {
        now.extend(costs::of(&boot::boot(packages, CPU, beneath, Play::Costs), beneath));
    }
    let then: costs::Costs = serde_json::from_str(include_str!("costs.json")).expect("JSON");
    let changed = costs::changed(&now, &then);
    let now = serde_json::to_string_pretty(&now).expect("JSON");
    assert!(
        changed.is_empty(),
        "{changed:#?}\nif that is as it should be, costs.json is now {now}"
    );
}

#[test]
fn a_cost_may_change_by_a_twentieth_and_no_more() {
    let costs = |cost: u64| costs::Costs::from([("a stop".to_owned(), cost)]);
    assert!(costs::changed(&costs(1050), &costs(1000)).is_empty());
    assert!(costs::changed(&costs(950), &costs(1000)).is_empty());
    assert_eq!(costs::changed(&costs(1051), &costs(1000)).len(), 1);
    assert_eq!(costs::changed(&costs(949), &costs(1000)).len(), 1);
    assert_eq!(costs::changed(&costs(1), &costs::Costs::new()).len(), 1, "what was not there");
    assert_eq!(costs::changed(&costs::Costs::new(), &costs(1)).len(), 1, "what is not there");
}
