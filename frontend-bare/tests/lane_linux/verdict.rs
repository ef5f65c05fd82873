//! What a transcript must say, with nothing beneath Linux and with the monitor beneath it.

use crate::boot::Beneath;
use crate::secrets::{GUESTS, proof};
use crate::transcript::{Scan, Transcript};

/// Every route, and the classes of secrets that it must lead to where nothing is beneath Linux.
/// `before` is no route: it is the last one, before there were guests.
const ROUTES: [(&str, &[&str]); 6] = [
    ("before", &[]),
    ("registers", &["general", "control", "xmm", "ymm"]),
    ("mapping", &["memory"]),
    ("process", &["memory"]),
    ("physical", &["memory", "general", "control", "xmm", "ymm"]),
    ("stale-mailbox", &["mailbox"]),
];

const CLASSES: [&str; 6] = ["memory", "mailbox", "general", "control", "xmm", "ymm"];

/// On guests, by their VMM.
const ON_GUESTS: [&str; 5] = ["write", "swap", "replay", "foreign", "register"];
/// On the monitor, from ring 0, and how it names what it refuses.
const ON_THE_MONITOR: [(&str, &str); 4] = [
    ("peek", "the hypervisor touches"),
    ("hsave", "WRMSR of 0xc0010117"),
    ("vmload", "VMLOAD"),
    ("vmrun", "VMRUN"),
];

/// How KVM says that nobody serves a call.
const NOBODY: &str = "18446744073709550616";

/// What is wrong with a transcript.
struct Judge<'t> {
    said: &'t Transcript,
    beneath: Beneath,
    wrong: Vec<String>,
}

/// Everything that is not as it must be.
pub(crate) fn complaints(said: &Transcript, beneath: Beneath) -> Vec<String> {
    let mut judge = Judge { said, beneath, wrong: vec![] };
    judge.must(said.says("stage: done"), || "the stage did not come to its end".into());
    for (name, seed) in GUESTS {
        judge.guest(name, seed);
        for (route, leads_to) in ROUTES {
            for class in CLASSES {
                judge.scan(route, class, name, leads_to.contains(&class));
            }
        }
    }
    judge.attacks();
    judge.wrong
}

impl Judge<'_> {
    fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }

    /// A guest computed with its secrets (in wide registers, too: this machine has some), kept
    /// them, and could talk through its mailbox.
    fn guest(&mut self, name: &str, seed: u64) {
        let served = if self.beneath == Beneath::Monitor { "0" } else { NOBODY };
        for call in ["launch", "share", "unshare"] {
            let answer = self.said.after(&format!("[{name}] {call} "));
            self.must(answer == Some(served), || format!("{name}: {call} answers {answer:?}"));
        }
        let record = self.said.after(&format!("[{name}] record ")).unwrap_or_default();
        let (answer, measured) = record.split_once(" measured ").unwrap_or_default();
        self.must(answer == served, || format!("{name}: record answers {record:?}"));
        if self.beneath == Beneath::Monitor {
            let same = |line: &&String| line.as_str() == measured;
            let told = self.said.measured.iter().filter(same).count();
            self.must(told == 1, || format!("{name} and the monitor differ on what it is"));
        }
        let proof = format!("proof {:#x} broken 0", proof(seed, true));
        for fact in ["wide 1", proof.as_str(), "mailbox answered", "mailbox kept", "verdict kept"] {
            let said = self.said.says(&format!("[{name}] {fact}"));
            self.must(said, || format!("{name} did not say {fact:?}"));
        }
    }

    /// A route was searched for all words of a class. With nothing beneath Linux it led to some
    /// where it must, and else, before there are guests and beneath it all, to none.
    fn scan(&mut self, route: &str, class: &str, guest: &str, leads: bool) {
        let is_it =
            |scan: &&Scan| scan.route == route && scan.class == class && scan.guest == guest;
        let Some(scan) = self.said.scans.iter().find(is_it) else {
            self.must(false, || format!("{route} was not searched for {class} of {guest}"));
            return;
        };
        self.must(scan.words > 0, || format!("nothing was looked for: {scan:?}"));
        let enough = scan.bytes >= least_bytes(route);
        self.must(enough, || format!("hardly anything was looked at: {scan:?}"));
        if self.beneath == Beneath::Monitor || route == "before" {
            self.must(scan.hits == 0, || format!("found: {scan:?}"));
        } else if leads {
            self.must(scan.hits > 0, || format!("not found: {scan:?}"));
        }
    }

    /// Attacks succeed where nothing is beneath Linux, and nowhere else; a page that is paged out
    /// and comes back as it was is no attack.
    fn attacks(&mut self) {
        let outcome = |name: &str| Some(self.said.attacks.get(name)?.0.as_str());
        let honest = outcome("page-out");
        let names = ON_GUESTS.into_iter().chain(ON_THE_MONITOR.map(|(name, _)| name));
        let came: Vec<_> = names.map(|name| (name, outcome(name))).collect();
        self.must(honest == Some("unmoved"), || format!("page-out: {honest:?}"));
        let alone = self.beneath == Beneath::Nothing;
        let wanted = Some(if alone { "fooled" } else { "stopped" });
        for (name, outcome) in came {
            self.must(outcome == wanted, || format!("attack {name}: {outcome:?}"));
        }
        let leaked = self.said.says("stage: the guest reads the other one's page");
        let missed = self.said.says("stage: the guest misses the other one's page");
        self.must((leaked, missed) == (alone, !alone), || "the other one's page".into());
        if !alone {
            self.reasons();
        }
    }

    /// The monitor said of each attack why it was refused.
    fn reasons(&mut self) {
        let (stopped, refused) = (self.said.stopped.clone(), self.said.refused.clone());
        self.must(stopped.len() == ON_GUESTS.len(), || format!("stopped guests: {stopped:?}"));
        for (name, what) in ON_THE_MONITOR {
            let is_said = refused.iter().any(|line| line.starts_with(what));
            self.must(is_said, || format!("{name} is not among what was refused: {refused:?}"));
        }
    }
}

/// How much a route shows at least, or nothing could have been found by it: nearly all memory of
/// the machine, both guests' memory, a page of each, and many looks at their registers.
fn least_bytes(route: &str) -> u64 {
    const GUESTS_MEMORY: u64 = 2 * 256 * 4096;
    match route {
        "before" | "physical" => 400 << 20,
        "mapping" | "process" => GUESTS_MEMORY,
        "stale-mailbox" => 2 * 4096,
        _ => 100 << 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said when everything is as it must be.
    fn perfect(beneath: Beneath) -> String {
        let alone = beneath == Beneath::Nothing;
        let served = if alone { NOBODY } else { "0" };
        let mut text = String::from("stage: done\n");
        for (name, seed) in GUESTS {
            for fact in ["wide 1", "mailbox answered", "mailbox kept", "verdict kept"] {
                text += &format!("[{name}] {fact}\r\n");
            }
            text += &format!("[{name}] proof {:#x} broken 0\r\n", proof(seed, true));
            for call in ["launch", "share", "unshare"] {
                text += &format!("[{name}] {call} {served}\r\n");
            }
            text += &format!("[{name}] record {served} measured {seed:064x}\r\n");
            for (route, leads_to) in ROUTES {
                for class in CLASSES {
                    let hits = u8::from(alone && leads_to.contains(&class));
                    let bytes = least_bytes(route);
                    text += &format!(
                        "scan route={route} guest={name} class={class} words=3 bytes={bytes} \
                         hits={hits}\r\n"
                    );
                }
            }
        }
        for name in ON_GUESTS.into_iter().chain(ON_THE_MONITOR.map(|(name, _)| name)) {
            let outcome = if alone { "fooled" } else { "stopped" };
            text += &format!("attack {name}: {outcome}: as was seen\r\n");
        }
        let reads = if alone { "reads" } else { "misses" };
        text + &format!(
            "attack page-out: unmoved: it: came back\r\n\
             stage: the guest {reads} the other one's page\r\n"
        )
    }

    /// What the monitor says when it refuses what it must.
    fn console() -> String {
        let stopped = ON_GUESTS.map(|name| format!("monitor: guest 0 is stopped: {name}\r\n"));
        let refused = ON_THE_MONITOR.map(|(_, what)| format!("monitor: refused: {what} x\r\n"));
        let launched = GUESTS.map(|(_, seed)| {
            format!("monitor: guest 0 is launched: 3 pages of 4, measured {seed:064x}\r\n")
        });
        stopped.concat() + &refused.concat() + &launched.concat()
    }

    fn wrong(facts: &str, beneath: Beneath) -> Vec<String> {
        complaints(&Transcript::parse(facts, &console()), beneath)
    }

    #[test]
    fn a_transcript_is_right_for_what_is_beneath_and_for_nothing_else() {
        use Beneath::{Monitor, Nothing};
        assert_eq!(wrong(&perfect(Nothing), Nothing), [""; 0]);
        assert_eq!(wrong(&perfect(Monitor), Monitor), [""; 0]);
        assert!(!wrong(&perfect(Nothing), Monitor).is_empty());
        assert!(!wrong(&perfect(Monitor), Nothing).is_empty());
        assert!(!wrong("", Monitor).is_empty());
    }

    #[test]
    fn no_line_of_a_transcript_can_be_missing() {
        for beneath in [Beneath::Nothing, Beneath::Monitor] {
            let text = perfect(beneath);
            for missing in text.lines() {
                let rest: Vec<_> = text.lines().filter(|line| *line != missing).collect();
                assert!(!wrong(&rest.join("\n"), beneath).is_empty(), "{beneath:?}: {missing}");
            }
        }
    }

    #[test]
    fn what_is_refused_or_measured_is_said() {
        let (facts, console) = (perfect(Beneath::Monitor), console());
        for missing in console.lines() {
            let rest: Vec<_> = console.lines().filter(|line| *line != missing).collect();
            let said = Transcript::parse(&facts, &rest.join("\n"));
            assert!(!complaints(&said, Beneath::Monitor).is_empty(), "{missing}");
        }
    }

    #[test]
    fn one_find_one_fooled_guest_or_one_wrong_proof_is_enough() {
        let text = perfect(Beneath::Monitor);
        for (right, not) in [
            ("hits=0", "hits=1"),
            ("words=3", "words=0"),
            ("bytes=1", "bytes=0"),
            ("bytes=2", "bytes=0"),
            ("bytes=4", "bytes=0"),
            ("bytes=8", "bytes=0"),
            ("stopped", "fooled"),
            ("unmoved", "stopped"),
            ("broken 0", "broken 1"),
            ("proof 0x", "proof 0x1"),
            ("launch 0", "launch 5"),
        ] {
            for at in text.match_indices(right).map(|(at, _)| at) {
                let changed = format!("{}{not}{}", &text[..at], &text[at + right.len()..]);
                assert!(!wrong(&changed, Beneath::Monitor).is_empty(), "{right} at {at}");
            }
        }
    }
}
