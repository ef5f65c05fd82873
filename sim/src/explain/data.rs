//! The story as JSON for the page: texts and cells with names, nothing that a script works out.

use serde_json::{Value, json};
use view_core::PageState;

use super::blame::{Culprit, cell, culprits};
use super::look::{Look, PageLook, PlaceLook, Via};
use super::story::{Flight, Step};
use super::words::{Mover, bytes_class, mover, ownership_word, plain_word, state_word, via_word};
use crate::bytes::{Bytes, Seal};
use crate::event::{PageRef, Phys};
use crate::invariant::INVARIANTS;
use crate::table;

/// Everything that the page shows of its steps. Seals are listed in the order of their making.
pub(super) fn steps(steps: &[Step]) -> Value {
    let mut known: Vec<Seal> = Vec::new();
    let mut told = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        known.extend(
            step.look
                .known
                .iter()
                .filter(|seal| !known.contains(seal))
                .copied()
                .collect::<Vec<_>>(),
        );
        let before = index.checked_sub(1).and_then(|before| steps.get(before));
        told.push(of_step(step, before, &known));
    }
    Value::Array(told)
}

fn of_step(step: &Step, before: Option<&Step>, known: &[Seal]) -> Value {
    let look = &step.look;
    json!({
        "line": step.event.map_or_else(|| "start".to_owned(), |event| event.to_string()),
        "mover": step.event.map_or(Mover::Host, mover).name(),
        "words": step.words,
        "call": step.call,
        "outcomes": step.outcomes.iter().map(|outcome| {
            json!({ "words": outcome.words, "is_wrong": outcome.is_wrong })
        }).collect::<Vec<_>>(),
        "sight": step.sight.map(|sight| json!({
            "who": if sight.by_guest { "guest" } else { "management" },
            "at": sight.at.to_string(),
            "bytes": bytes(sight.bytes),
        })),
        "life": look.life,
        "ticked": look.ticked,
        "vms": look.vms.iter().map(|vm| {
            let runs = match (vm.launched, vm.runs) {
                (false, _) => "being built",
                (true, true) => "runs",
                (true, false) => "stopped",
            };
            json!({ "key": cell::vm(vm.number), "name": format!("VM {}", vm.number), "text": runs })
        }).collect::<Vec<_>>(),
        "cpus": look.tlbs.len(),
        "pages": look.pages.iter().map(|page| of_page(look, page)).collect::<Vec<_>>(),
        "places": look.places.iter().map(|place| of_place(look, place)).collect::<Vec<_>>(),
        "flights": step.flights.iter().map(of_flight).collect::<Vec<_>>(),
        "known": known.iter().map(|seal| of_seal(*seal)).collect::<Vec<_>>(),
        "broken": broken(step, before),
    })
}

fn bytes(of: Bytes) -> Value {
    let (text, inside) = match of {
        Bytes::Plain(plain) => (plain_word(plain), None),
        Bytes::Sealed(seal) => (format!("sealed {}", seal.label), Some(plain_word(seal.inner))),
    };
    json!({ "class": bytes_class(of), "text": text, "inside": inside })
}

fn of_page(look: &Look, page: &PageLook) -> Value {
    let name = page.page;
    let guest = look.vias().map(|via| {
        json!({
            "key": cell::guest(name, via),
            "at": look.guest(name, via).map(|at| at.to_string()),
            "stale": look.guest_is_stale(name, via),
        })
    });
    json!({
        "name": name.to_string(),
        "state": state(page),
        "version": { "key": cell::version(name), "text": page.version },
        "held": { "key": cell::held(name), "text": page.busy },
        "latest": { "key": cell::latest(name), "bytes": bytes(page.ghost.latest) },
        "handed": { "key": cell::handed(name), "bytes": bytes(page.handed) },
        "hands": page.handed != Bytes::PUBLIC,
        "guest_view": { "key": cell::guest_view(name), "views": guest_views(look, page) },
        "host_view": { "key": cell::host_view(name), "views": host_views(look, page) },
        "guest": guest.collect::<Vec<_>>(),
    })
}

/// A page under way rests in no state: what shows is what it would be if its batch ended.
fn state(page: &PageLook) -> Value {
    let under_way = page.busy && matches!(page.state, PageState::Poisoned | PageState::Scrubbing);
    let text = state_word(page.state);
    let class = if under_way { "moving" } else { table::name(page.state) };
    let text = if under_way { format!("half way; {text} if left so") } else { text };
    json!({ "key": cell::state(page.page), "text": text, "class": class.to_lowercase() })
}

/// A way to some bytes and, if only CPUs know it, which.
fn view(at: Phys, ways: &[Via], shown: Value) -> Value {
    let stale = !ways.contains(&Via::Table);
    let by: Vec<String> = ways.iter().copied().map(via_word).collect();
    json!({ "at": at.to_string(), "bytes": shown, "stale": stale, "by": by.join(", ") })
}

fn guest_views(look: &Look, page: &PageLook) -> Vec<Value> {
    let mut places: Vec<Phys> = look.guest_vias(page.page).map(|(_, at)| at).collect();
    places.dedup();
    places.sort_unstable();
    places.dedup();
    let ways = |place: Phys| -> Vec<Via> {
        look.guest_vias(page.page).filter(|(_, at)| *at == place).map(|(via, _)| via).collect()
    };
    places.into_iter().map(|at| view(at, &ways(at), bytes(look.bytes(at)))).collect()
}

/// What the management side has of a page: never what is inside a seal.
fn host_views(look: &Look, page: &PageLook) -> Vec<Value> {
    let places = page.frame.into_iter().chain(page.replica);
    let reached = places.filter_map(|at| {
        let ways: Vec<Via> = look.host_vias(at).collect();
        let mut shown = bytes(look.bytes(at));
        shown["inside"] = Value::Null;
        (!ways.is_empty()).then(|| view(at, &ways, shown))
    });
    reached.collect()
}

fn of_place(look: &Look, place: &PlaceLook) -> Value {
    let at = place.place;
    let replica_of = || {
        let page = look.pages.iter().find(|page| page.replica == Some(at))?;
        Some(format!("replica of page {}", page.page))
    };
    let owner = match place.owner {
        Some(owner) => ownership_word(owner),
        None => replica_of().unwrap_or_else(|| "unused replica".to_owned()),
    };
    let host = look.vias().map(|via| {
        json!({
            "key": cell::host(at, via),
            "perm": look.host(at, via).map(|perm| match perm {
                view_core::Perm::Read => "read",
                view_core::Perm::ReadWrite => "write",
            }),
            "stale": look.host_is_stale(at, via),
        })
    });
    json!({
        "name": at.to_string(),
        "owner": { "key": cell::owner(at), "text": owner },
        "bytes": { "key": cell::bytes(at), "bytes": bytes(place.bytes) },
        "host": host.collect::<Vec<_>>(),
    })
}

fn of_flight(flight: &Flight) -> Value {
    let ask = |(page, ask): &(PageRef, crate::event::Ask)| format!("{page} {ask}");
    json!({
        "cpu": flight.cpu,
        "asks": flight.asks.iter().map(ask).collect::<Vec<_>>(),
        "calls": flight.calls.iter().map(|call| call.words.clone()).collect::<Vec<_>>(),
        "taken": flight.taken,
        "fate": flight.fate,
    })
}

fn of_seal(seal: Seal) -> Value {
    json!({
        "key": cell::seal(seal.label),
        "text": format!("sealed {}", seal.label),
        "inside": plain_word(seal.inner),
    })
}

fn broken(step: &Step, before: Option<&Step>) -> Vec<Value> {
    let sentence = |id: &str| {
        INVARIANTS.iter().find(|one| one.id == id).map_or("", |invariant| invariant.sentence)
    };
    let of = |id: &&'static str| {
        let culprits = culprits(id, &step.look);
        json!({
            "id": id,
            "sentence": sentence(id),
            "since": before.is_some_and(|before| before.broken.contains(id)),
            "because": culprits.iter().map(|Culprit { words, .. }| words).collect::<Vec<_>>(),
            "cells": culprits.iter().flat_map(|culprit| &culprit.cells).collect::<Vec<_>>(),
        })
    };
    step.broken.iter().map(of).collect()
}
