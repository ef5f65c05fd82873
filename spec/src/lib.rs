//! What must hold. The claims are the Markdown files beside this crate; tests read them.
//!
//! [`life`] and [`oracle`] say in Rust what states.md says in a table, and import nothing of ours:
//! sim holds the core against them after every event.

pub mod life;
pub mod oracle;

/// Every invariant with its sentence, where it is checked, and the mutants that it catches.
pub const INVARIANTS: &str = include_str!("../invariants.md");

/// What the management side can do, and the files of sim in which it does so.
pub const ATTACKS: &str = include_str!("../attacks.md");

/// The life of a page: what every event leads to in every state.
pub const STATES: &str = include_str!("../states.md");

/// What shows of registers at each exit, and what may be changed.
pub const REGISTER_MASKS: &str = include_str!("../register-masks.md");

/// How many distinct states TLC finds in each configuration that tla/ has, as JSON.
const COUNTS: &str = include_str!("../tla/counts.json");

/// The configurations that TLC explores too, and how many distinct states it finds in each.
pub fn tlc_distinct_states() -> impl Iterator<Item = (&'static str, u64)> {
    COUNTS.lines().filter_map(|line| {
        let (name, count) = line.trim().trim_end_matches(',').split_once(':')?;
        Some((name.trim_matches('"'), count.trim().parse().ok()?))
    })
}

/// The cells of a Markdown table's rows, without heads and rules: every line that starts with `|`.
pub fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}
