//! What the lane's Linux says on its console, as facts.

use std::collections::BTreeMap;

/// One line of the scanner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scan {
    pub(crate) route: String,
    pub(crate) guest: String,
    pub(crate) class: String,
    /// How many different words it looked for.
    pub(crate) words: u64,
    /// How many bytes it looked at.
    pub(crate) bytes: u64,
    /// How often it found one.
    pub(crate) hits: u64,
}

/// All that was said.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) scans: Vec<Scan>,
    /// What came of each attack: one word, and what was seen.
    pub(crate) attacks: BTreeMap<String, (String, String)>,
    /// What whoever is beneath Linux says it refused.
    pub(crate) refused: Vec<String>,
    /// Why it stopped guests.
    pub(crate) stopped: Vec<String>,
    /// What it measured of them.
    pub(crate) measured: Vec<String>,
    lines: Vec<String>,
}

impl Transcript {
    /// Of what the lane's programs said, and of what was on the console.
    pub(crate) fn parse(facts: &str, console: &str) -> Self {
        let mut this = Self::default();
        for line in console.lines().filter_map(|line| line.trim().strip_prefix("monitor: ")) {
            if let Some(what) = line.strip_prefix("refused: ") {
                this.refused.push(what.into());
            } else if let Some((_, why)) = line.split_once(" is stopped: ") {
                this.stopped.push(why.into());
            } else if let Some((_, measured)) = line.split_once(", measured ") {
                this.measured.push(measured.into());
            }
        }
        for line in facts.lines().map(str::trim) {
            if let Some(fields) = line.strip_prefix("scan ") {
                this.scans.extend(scan(fields));
            } else if let Some((name, (outcome, seen))) = line
                .strip_prefix("attack ")
                .and_then(|line| line.split_once(": "))
                .and_then(|(name, rest)| Some((name, rest.split_once(": ")?)))
            {
                this.attacks.insert(name.into(), (outcome.into(), seen.into()));
            }
            this.lines.push(line.into());
        }
        this
    }

    /// How often each route led to a secret of each class, and what came of the attacks.
    pub(crate) fn summary(&self) -> String {
        let mut routes: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for Scan { route, class, hits, .. } in &self.scans {
            *routes.entry(route).or_default().entry(class).or_default() += hits;
        }
        let routes = routes.iter().map(|(route, hits)| {
            let hits: Vec<_> = hits.iter().map(|(class, hits)| format!("{class} {hits}")).collect();
            format!("\n    {route}: {}", hits.join(", "))
        });
        let attacks = self.attacks.iter().map(|(name, (outcome, _))| format!(" {name} {outcome}"));
        routes.chain(["\n   ".into()]).chain(attacks).collect()
    }

    /// Whether a whole line was this.
    pub(crate) fn says(&self, wanted: &str) -> bool {
        self.lines.iter().any(|line| line == wanted)
    }

    /// The rest of the first line that begins so.
    pub(crate) fn after(&self, beginning: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(beginning))
    }
}

/// The fields of a scanner's line. None if one is missing.
fn scan(fields: &str) -> Option<Scan> {
    let fields: BTreeMap<_, _> = fields.split(' ').filter_map(|f| f.split_once('=')).collect();
    let text = |name| fields.get(name).map(|value| (*value).to_owned());
    Some(Scan {
        route: text("route")?,
        guest: text("guest")?,
        class: text("class")?,
        words: fields.get("words")?.parse().ok()?,
        bytes: fields.get("bytes")?.parse().ok()?,
        hits: fields.get("hits")?.parse().ok()?,
    })
}
