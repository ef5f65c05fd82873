//! The prose of spec/ says what the code does: invariants row by row, states cell by cell.

use std::collections::BTreeMap;

use sim::config::{ALL_ASKS, Config, PAGE};
use sim::event::{Ask, Event, PageRef, Term};
use sim::report::{claims, wrong_machines};
use sim::table::{STATES, after, event_name, name};
use sim::world::{World, play};
use view_core::{PageState, Perm};

const PAGE_0: PageRef = PageRef { vm: 0, gfn: 0 };

#[test]
fn invariants_md_has_the_rows_of_the_list_and_no_other() {
    let rows = spec::rows(spec::INVARIANTS).filter(|row| row.len() == 4);
    let rows: Vec<Vec<&str>> = rows.skip_while(|row| row[0] != "C1").collect();
    let ids: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(ids, claims().iter().map(|claim| claim.id).collect::<Vec<_>>());
    for (row, claim) in rows.iter().zip(claims()) {
        assert_eq!(row[1], claim.sentence, "{}", claim.id);
        let wrong = wrong_machines().into_iter();
        let catches = wrong.filter(|(_, _, caught_by)| caught_by.contains(&claim.id));
        let catches: Vec<&str> = catches.map(|(name, ..)| name).collect();
        assert_eq!(row[3], catches.join(", "), "mutants of {}", claim.id);
    }
}

#[test]
fn invariants_md_says_of_each_wrong_machine_what_is_wrong() {
    let rows = spec::rows(spec::INVARIANTS).filter(|row| row.len() == 2 && row[0] != "mutant");
    let rows = rows.filter(|row| !row[0].starts_with('-'));
    let written: Vec<(&str, &str)> = rows.map(|row| (row[0], row[1])).collect();
    let listed: Vec<(&str, &str)> =
        wrong_machines().into_iter().map(|(name, sentence, _)| (name, sentence)).collect();
    assert_eq!(written, listed);
}

/// A world in which everything may happen, so that no bound refuses anything.
const WIDE: Config =
    Config { name: "wide", frames: 2, versions: 9, stores: 9, launched: false, ..PAGE };

/// Traces to a page in each state, and whether the VM is launched by then.
fn ways() -> Vec<(&'static str, Vec<Event>)> {
    let run = |asks: &[Ask]| {
        let one =
            |ask: &Ask| [Event::Begin(0, PAGE_0, *ask)].into_iter().chain([Event::Step(0); 8]);
        asks.iter().flat_map(one).collect::<Vec<_>>()
    };
    let accepted = |launched: bool| {
        let launch = launched.then_some(Event::LaunchVm(0));
        let accept = run(&[Ask::Accept(0)]);
        launch.into_iter().chain([Event::Offer(0, PAGE_0)]).chain(accept).collect::<Vec<_>>()
    };
    let then = |asks: &[Ask]| [accepted(true), run(asks)].concat();
    let poison = [Event::Begin(0, PAGE_0, Ask::Seal), Event::Step(0), Event::Drop(0)];
    let mut ways = vec![
        ("Free", Vec::new()),
        ("Free", vec![Event::LaunchVm(0)]),
        ("Building", accepted(false)),
        ("Private", accepted(true)),
        ("Replica", then(&[Ask::Map(Perm::Read)])),
        ("Sealed", then(&[Ask::Seal])),
        ("PagedOut", then(&[Ask::PageOut])),
        ("Poisoned", [accepted(true), poison.to_vec()].concat()),
    ];
    for perm in [Perm::Read, Perm::ReadWrite] {
        for term in [Term::Never, Term::Once] {
            ways.push(("Open", then(&[Ask::Share(perm, term)])));
        }
    }
    ways
}

/// Asks in a world; what the page is afterwards, or `None` if it was refused.
fn asked(world: &mut World<'_>, ask: Ask) -> Option<PageState> {
    // A frame on offer, so that only the table can refuse.
    world.apply(Event::Offer(1, PAGE_0));
    world.apply(Event::Begin(0, PAGE_0, ask));
    if world.just.refused.is_some() {
        return None;
    }
    (0..8).for_each(|_| world.apply(Event::Step(0)));
    assert!(world.flights[0].is_none(), "{ask} is over within eight steps");
    Some(world.state(PAGE_0))
}

#[test]
fn the_core_does_what_the_blackboard_says_in_every_state() {
    for (state_name, way) in ways() {
        for ask in ALL_ASKS.iter().map(|ask| in_frame(*ask)) {
            play(&WIDE, None, way.iter().copied(), |world| {
                let state = world.state(PAGE_0);
                assert_eq!(name(state), state_name);
                let once = world.ghosts[0].term == Some(Term::Once);
                let expected = after(state, ask, once, world.launched[0]);
                let found = asked(world, ask).map(name);
                assert_eq!(found, expected, "{ask} when {state:?}");
            });
        }
    }
}

/// The frame that is on offer, for asks that need one.
fn in_frame(ask: Ask) -> Ask {
    if matches!(ask, Ask::Accept(_)) {
        Ask::Accept(1)
    } else if matches!(ask, Ask::PageIn(_)) {
        Ask::PageIn(1)
    } else {
        ask
    }
}

#[test]
fn states_md_has_a_cell_for_every_state_and_event_and_each_is_what_the_core_does() {
    let mut table: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut head: Vec<&str> = Vec::new();
    for row in spec::rows(spec::STATES) {
        if row[0] == "event" {
            head = if row[1] == "Free" { row } else { Vec::new() };
        } else if head.len() == row.len() && !row[0].starts_with('-') {
            for (state, cell) in head.iter().zip(&row).skip(1) {
                let cells: Vec<&str> = cell.split(" or ").collect();
                let again = table.insert((*state, row[0]), cells);
                assert!(again.is_none(), "{state} has two cells for {}", row[0]);
            }
        }
    }
    let mut met: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (state_name, way) in ways() {
        for ask in ALL_ASKS.iter().map(|ask| in_frame(*ask)) {
            let found = play(&WIDE, None, way.iter().copied(), |world| asked(world, ask));
            let found = found.map_or("refused", name);
            let cells = met.entry((state_name, event_name(ask))).or_default();
            if !cells.contains(&found) {
                cells.push(found);
            }
        }
    }
    assert_eq!(STATES.len() * 15, met.len());
    for (cell, found) in &met {
        let mut found = found.clone();
        found.sort_unstable();
        let mut written = table.get(cell).cloned().unwrap_or_default();
        written.sort_unstable();
        assert_eq!(written, found, "{} when {}", cell.1, cell.0);
    }
    assert_eq!(table.len(), met.len());
}
