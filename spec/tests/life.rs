//! The oracle's table of life is states.md: every cell, and every row of steps.

use std::collections::BTreeSet;

use spec::life::{Ask, Rights, State, Steps, Stream, Until, after, burns, steps};

const RESTING: [State; 11] = [
    State::Free,
    State::Building,
    State::Private,
    State::Replica,
    State::Sealed,
    State::PagedOut,
    State::Open(Rights::Read, Until::Closed),
    State::Open(Rights::ReadWrite, Until::Closed),
    State::Open(Rights::Read, Until::FirstUnmap),
    State::Open(Rights::ReadWrite, Until::FirstUnmap),
    State::Poisoned,
];

const ASKS: [Ask; 19] = [
    Ask::Map(Rights::Read),
    Ask::Map(Rights::ReadWrite),
    Ask::Unmap,
    Ask::Export(Stream::View),
    Ask::Export(Stream::Image),
    Ask::Seal,
    Ask::PageOut,
    Ask::PageIn(0),
    Ask::Destroy,
    Ask::Accept(0),
    Ask::Launch,
    Ask::Touch,
    Ask::Share(Rights::Read, Until::Closed),
    Ask::Share(Rights::ReadWrite, Until::Closed),
    Ask::Share(Rights::Read, Until::FirstUnmap),
    Ask::Share(Rights::ReadWrite, Until::FirstUnmap),
    Ask::Unshare,
    Ask::Exclude(true),
    Ask::Exclude(false),
];

#[test]
fn every_cell_of_the_table_says_what_the_oracle_says() {
    let rows: Vec<Vec<&str>> = spec::rows(spec::STATES).collect();
    let head = rows.iter().find(|row| row[0] == "event" && row[1] == "Free").expect("a table");
    let mut cells = 0;
    for row in rows.iter().filter(|row| row.len() == head.len()) {
        for (state, cell) in head.iter().zip(row).skip(1).filter(|_| row[0] != "event") {
            let asks = ASKS.iter().filter(|ask| ask.name() == row[0]);
            let rests = RESTING.iter().filter(|rest| rest.name() == *state);
            let said: BTreeSet<&str> = asks
                .flat_map(|ask| rests.clone().map(move |rest| (*rest, *ask)))
                .flat_map(|(rest, ask)| [true, false].map(|launched| after(rest, ask, launched)))
                .map(|after| after.map_or("refused", State::name))
                .collect();
            if !said.is_empty() {
                cells += 1;
                assert_eq!(said, cell.split(" or ").collect(), "{} when {state}", row[0]);
            }
        }
    }
    let names: BTreeSet<&str> = ASKS.iter().map(|ask| ask.name()).collect();
    assert_eq!(cells, names.len() * (head.len() - 1), "a cell for every event and state");
}

/// What a row of the table of steps promises.
fn promised(withdraw: &str, then: &str, launched: bool) -> (Steps, bool) {
    let phrases: Vec<&str> = then.split(", ").collect();
    let has = |start: &str| phrases.iter().any(|phrase| phrase.starts_with(start));
    let withdraws = match withdraw {
        "" => 0,
        "owner" | "management" => 1,
        "both" => 2,
        other => panic!("who is {other}?"),
    };
    let promised = Steps {
        withdraws,
        fetches: has("fetch"),
        seals: has("seal "),
        opens: has("open "),
        scrubs: has("scrub "),
        grants: has("grant ") && (launched || !then.ends_with("if the VM is launched")),
    };
    assert_eq!(withdraws > 0, has("fence"), "{then}: a fence comes with a withdrawal");
    (promised, promised.seals || has("burn a version"))
}

#[test]
fn every_row_of_steps_says_what_the_oracle_says() {
    let mut told = BTreeSet::new();
    for row in spec::rows(spec::STATES).filter(|row| row.len() == 4 && row[0] != "state") {
        let asks = ASKS.iter().filter(|ask| ask.name().split('(').next() == Some(row[0]));
        for (ask, state) in asks.flat_map(|ask| RESTING.map(|state| (*ask, state))) {
            let named = row[1].split(", ").any(|from| from == state.name());
            let any = row[1] == "any with a frame" && state.has_frame();
            // To close at the first unmap is another row's business: see below.
            let closes = ask == Ask::Unmap && matches!(state, State::Open(_, Until::FirstUnmap));
            for launched in [false, true] {
                if (named || any) && !closes && after(state, ask, launched).is_some() {
                    let said = (steps(state, ask, launched), burns(state, ask));
                    assert_eq!(said, promised(row[2], row[3], launched), "{ask:?} when {state:?}");
                    told.insert((ask.name(), state.name()));
                }
            }
        }
    }
    for (ask, state) in ASKS.iter().flat_map(|ask| RESTING.map(|state| (*ask, state))) {
        // Neither takes a step: a flag is set, a page that is out is forgotten.
        let still = matches!((ask, state), (Ask::Exclude(_), _) | (Ask::Destroy, State::PagedOut));
        if !still && after(state, ask, true).is_some() {
            assert!(told.contains(&(ask.name(), state.name())), "no row has {ask:?} of {state:?}");
        }
    }
}

#[test]
fn a_first_unmap_closes_a_page_as_its_owner_would() {
    let open = State::Open(Rights::Read, Until::FirstUnmap);
    assert_eq!(steps(open, Ask::Unmap, true), steps(open, Ask::Unshare, true));
    assert!(burns(open, Ask::Unmap));
    assert!(!burns(State::Open(Rights::Read, Until::Closed), Ask::Unmap));
}

#[test]
fn only_what_brings_a_page_into_a_frame_names_one() {
    for ask in ASKS {
        let brings = matches!(ask, Ask::Accept(_) | Ask::PageIn(_));
        assert_eq!(ask.frame().is_some(), brings, "{ask:?}");
    }
    assert_eq!([Ask::Accept(7), Ask::PageIn(9)].map(Ask::frame), [Some(7), Some(9)]);
}
