//! A trace as one HTML page that steps through it: both views of every page, what tables say and
//! CPUs remember, batches, seals, and the clause that broke.
//!
//! The page needs no network and no other file. What comes from the trace is data in it, escaped
//! once here, and never markup.

mod blame;
mod data;
mod look;
mod rehearsal;
mod story;
mod words;

use serde_json::{Value, json};

use crate::trace::Trace;
use story::Step;

/// The page with gaps, which are filled in this order: title, style, steps without a script, data,
/// script.
const PAGE: &str = include_str!("explain/page.html");
const STYLE: &str = include_str!("explain/page.css");
const SCRIPT: &str = include_str!("explain/page.js");
const GAP: &str = "<!--gap-->";

/// The page for a trace. `name` and `notes` say where it comes from.
pub fn html(trace: &Trace, name: &str, notes: &[String]) -> String {
    let steps = story::steps(trace);
    let breaking = breaking(trace, &steps);
    let headline = headline(trace, &steps, breaking);
    let data = json!({
        "headline": headline,
        "configuration": format!("{}: {}", trace.config.name, trace.config.purpose),
        "bounds": trace.config.bounds(),
        "mutant": trace.mutant.map(|entry| json!({
            "name": entry.name,
            "sentence": entry.sentence,
        })),
        "expected": trace.breaks,
        "breaking": breaking,
        "name": name,
        "notes": notes,
        "steps": data::steps(&steps),
    });
    let plain: String =
        steps.iter().map(|step| format!("<li>{}</li>\n", escaped(&step.words))).collect();
    fill(&[&escaped(&headline), STYLE, &plain, &in_script(&data), SCRIPT])
}

/// What the lines of a trace file that begin with `#` say.
pub fn notes(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix('#'))
        .map(|note| note.trim().to_owned())
        .collect()
}

/// The step at which the clauses that the trace is about break, or any clause if it is about none.
fn breaking(trace: &Trace, steps: &[Step]) -> Option<usize> {
    let named = |step: &Step| step.broken.iter().any(|id| trace.breaks.contains(id));
    let any = |step: &Step| !step.broken.is_empty();
    steps.iter().position(named).or_else(|| steps.iter().position(any))
}

fn headline(trace: &Trace, steps: &[Step], breaking: Option<usize>) -> String {
    let count = trace.events.len();
    let machine = trace.mutant.map(|entry| entry.sentence);
    match (machine, breaking) {
        (Some(wrong), Some(at)) => {
            let clauses = clauses(&steps[at].broken);
            format!("One thing is wrong on purpose: {wrong}. {clauses} at event {at} of {count}.")
        }
        (Some(wrong), None) => {
            format!("One thing is wrong on purpose: {wrong}. Every clause holds all the same.")
        }
        (None, Some(at)) => {
            format!("A sound machine: {} at event {at} of {count}.", clauses(&steps[at].broken))
        }
        (None, None) => {
            format!("A sound machine, {count} events: every clause holds after each of them.")
        }
    }
}

fn clauses(ids: &[&str]) -> String {
    match ids {
        [id] => format!("Clause {id} breaks"),
        ids => format!("Clauses {} break", ids.join(", ")),
    }
}

/// Puts texts into the gaps. A text that says `GAP` itself is not looked into.
fn fill(texts: &[&str]) -> String {
    let parts: Vec<&str> = PAGE.split(GAP).collect();
    assert_eq!(parts.len(), texts.len() + 1, "a text for each gap");
    let filled = parts.iter().zip(texts.iter().copied().chain([""]));
    filled.flat_map(|(part, text)| [*part, text]).collect()
}

/// Text where markup is expected.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// JSON where a script is expected: nothing in it can end the element or begin a comment.
fn in_script(data: &Value) -> String {
    let json = data.to_string();
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_markup_is_escaped() {
        assert_eq!(escaped("<a b=\"c\">&</a>"), "&lt;a b=&quot;c&quot;&gt;&amp;&lt;/a&gt;");
        let data = json!(["</script>", "<!--", "&"]);
        let shown = in_script(&data);
        assert!(!shown.contains(['<', '>', '&']), "{shown}");
        assert_eq!(shown.parse::<Value>().expect("JSON"), data);
    }

    #[test]
    fn a_gap_in_a_text_is_not_filled() {
        let page = fill(&[GAP, "style", "steps", "data", "script"]);
        assert!(page.contains(&format!("<title>{GAP}</title>\n<style>\nstyle\n</style>")));
        assert_eq!(page.matches(GAP).count(), 1);
    }
}
