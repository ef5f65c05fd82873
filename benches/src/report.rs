//! What a run of `peers` found, as one line of JSON and as tables to read.

use core::fmt::{self, Write};
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::measure::{L2_PAGES, LIST, LISTS, Rounds, Scaling, TURN, in_lists};

/// The default suite, both ways.
const SIV: [&str; 2] = ["siv-cmac-512-seal", "siv-cmac-512-open"];

/// What the default suite is held against in cold memory.
const AGAINST: [&str; 6] = [
    "memcpy",
    "nt-copy",
    "aws-lc-aes-256-gcm-siv",
    "aws-lc-aes-256-gcm",
    "openssl-aes-256-xts",
    "naive-ctr-cmac",
];

/// The suites for much data, which are held against the fastest copy.
const BULK: [&str; 2] = ["aes-256-gcm", "aegis-128x4"];

/// Everything that one run measured.
#[derive(Debug)]
pub struct Report {
    /// Cold memory.
    pub cold: Rounds,
    /// The L2 cache.
    pub l2: Rounds,
    /// Single pages.
    pub single_page: Rounds,
    /// Two threads.
    pub two_cores: Vec<Scaling>,
    /// Lists of every length, under the names of [`in_lists`].
    pub by_batch: Rounds,
    /// Pages of the cold area.
    pub pages: usize,
}

impl Report {
    /// The JSON that README's targets are read from.
    pub fn json(&self) -> Value {
        let lists = |name: &str| {
            let lists = LISTS.map(|list| {
                let gbps = self.by_batch.gbps(&in_lists(name, list));
                (list.to_string(), rounded(gbps))
            });
            (name.to_owned(), Value::Object(lists.into_iter().collect()))
        };
        let ratios = self.ratios().into_iter().map(|(pair, ratio)| (pair, rounded(Some(ratio))));
        let scaling = |found: &Scaling| (found.name.to_owned(), rounded(Some(found.times)));
        json!({
            "cold": each(&self.cold, |name| json!({
                "gbps": rounded(self.cold.gbps(name)),
                "x_memcpy": rounded(self.cold.times_as_fast(name, "memcpy")),
            })),
            "l2": each(&self.l2, |name| json!({ "gbps": rounded(self.l2.gbps(name)) })),
            "single_page": each(&self.single_page, |name| json!({
                "us": rounded(self.single_page.micros(name)),
                "x_memcpy": rounded(self.single_page.times_as_fast("memcpy", name)),
            })),
            "two_cores": self.two_cores.iter().map(scaling).collect::<Map<_, _>>(),
            "by_batch": self.batch_names().map(lists).collect::<Map<_, _>>(),
            "ratios": ratios.collect::<Map<_, _>>(),
            "rounds": {
                "cold": self.cold.count(),
                "l2": self.l2.count(),
                "single_page": self.single_page.count(),
                "by_batch": self.by_batch.count(),
            },
        })
    }

    /// How many times as fast the first of each pair is as the second.
    fn ratios(&self) -> BTreeMap<String, f64> {
        let mut ratios = BTreeMap::new();
        let mut add = |rounds: &Rounds, place: &str, name: &str, other: &str| {
            if let Some(ratio) = rounds.times_as_fast(name, other) {
                ratios.insert(format!("{place}{name}/{other}"), ratio);
            }
        };
        for name in SIV {
            AGAINST.iter().for_each(|other| add(&self.cold, "", name, other));
            add(&self.l2, "l2:", name, "two-pass-limit");
        }
        BULK.iter().for_each(|name| add(&self.cold, "", name, "nt-copy"));
        add(&self.cold, "", "siv-cmac-512-portable", "naive-ctr-cmac");
        let bulk = BULK.iter().filter_map(|name| self.cold.times_as_fast(name, "nt-copy"));
        if let Some(best) = bulk.reduce(f64::max) {
            ratios.insert("best-bulk/nt-copy".into(), best);
        }
        ratios
    }

    fn batch_names(&self) -> impl Iterator<Item = &str> {
        let names = self.by_batch.names().filter_map(|name| name.rsplit_once('/'));
        names.filter(|(_, list)| *list == LISTS[0].to_string()).map(|(name, _)| name)
    }

    fn rows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |number: Option<f64>, digits: usize| {
            number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
        };
        writeln!(f, "{:26}{:>8}{:>10}", "", "cold", "")?;
        writeln!(
            f,
            "{:26}{:>8}{:>10}{:>8}{:>10}{:>10}{:>11}",
            "", "GB/s", "x memcpy", "L2 GB/s", "page us", "x memcpy", "two cores"
        )?;
        let mut names: Vec<_> = self.cold.names().collect();
        names.extend(self.l2.names().filter(|name| self.cold.gbps(name).is_none()));
        for name in names {
            let cores = self.two_cores.iter().find(|found| found.name == name);
            writeln!(
                f,
                "{name:26}{:>8}{:>10}{:>8}{:>10}{:>10}{:>11}",
                of(self.cold.gbps(name), 2),
                of(self.cold.times_as_fast(name, "memcpy"), 3),
                of(self.l2.gbps(name), 2),
                of(self.single_page.micros(name), 2),
                of(self.single_page.times_as_fast("memcpy", name), 2),
                of(cores.map(|found| found.times), 2),
            )?;
        }
        Ok(())
    }

    fn lists(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = format!("{:26}", "cold, GB/s, pages a call:");
        LISTS.iter().try_for_each(|list| write!(head, "{list:>8}"))?;
        writeln!(f, "{head}")?;
        for name in self.batch_names() {
            write!(f, "{name:26}")?;
            for list in LISTS {
                write!(f, "{:8.2}", self.by_batch.gbps(&in_lists(name, list)).unwrap_or(0.0))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.pages >> 8;
        writeln!(f, "cold       {mib} MiB to {mib} MiB, {TURN} pages a turn in lists of {LIST},")?;
        writeln!(f, "           all other pages between two turns on the same ones")?;
        writeln!(f, "L2         {L2_PAGES} pages to {L2_PAGES} pages, again and again")?;
        writeln!(f, "page       one page a call, far from the last one, cold")?;
        writeln!(f, "two cores  both together / one alone, each on its own memory, by the wall")?;
        writeln!(f, "order      everyone once a round, in random order, {} rounds when cold", {
            self.cold.count()
        })?;
        writeln!(f, "clock      CPU time of the thread; a number is the median of the rounds,")?;
        writeln!(f, "           a ratio the median of the ratios within each round")?;
        writeln!(f, "memcpy     one call of libc's memcpy a page of 4 KiB\n")?;
        self.rows(f)?;
        writeln!(f)?;
        self.lists(f)?;
        writeln!(f, "\nhow many times as fast")?;
        for (pair, ratio) in self.ratios() {
            writeln!(f, "{pair:50}{ratio:8.3}")?;
        }
        Ok(())
    }
}

fn each(rounds: &Rounds, value: impl Fn(&str) -> Value) -> Map<String, Value> {
    rounds.names().map(|name| (name.to_owned(), value(name))).collect()
}

/// With three digits after the point: the rest is noise.
fn rounded(number: Option<f64>) -> Value {
    number.map_or(Value::Null, |number| ((number * 1e3).round() / 1e3).into())
}
