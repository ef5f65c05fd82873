//! What must hold. The claims are the Markdown files beside this crate; tests read them.
//!
//! [`life`] and [`oracle`] say in Rust what states.md says in a table, and import nothing of ours:
//! sim holds the core against them after every event.

pub mod life;
pub mod oracle;

/// Every invariant with its sentence, where it is checked, and the mutants that it catches.
pub const INVARIANTS: &str = include_str!("../invariants.md");

/// The life of a page: what every event leads to in every state.
pub const STATES: &str = include_str!("../states.md");

/// The cells of a Markdown table's rows, without heads and rules: every line that starts with `|`.
pub fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}
