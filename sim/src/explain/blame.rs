//! What exactly breaks a clause: a sentence, and the names of the cells that show it.
//!
//! The verdict is that of [`invariant`](crate::invariant); this only finds what to point at. A
//! clause without a rule here gets none, and the page then points at what the event changed.

use view_core::{Ownership, PageState, VmNumber};

use super::look::{Look, PageLook, PlaceLook, Via};
use super::words::{bytes_word, ownership_word, perm_word, plain_word, state_word, via_word};
use crate::bytes::{Bytes, Label, Seal};
use crate::event::{PageRef, Phys};
use crate::machine::Install;

/// One thing that breaks a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Culprit {
    pub(super) words: String,
    /// The cells that show it.
    pub(super) cells: Vec<String>,
}

/// Names of cells, the same here and where they are drawn.
pub(super) mod cell {
    use super::{Label, PageRef, Phys, Via};

    fn via(via: Via) -> String {
        match via {
            Via::Table => "table".to_owned(),
            Via::Cpu(cpu) => format!("cpu{cpu}"),
        }
    }

    pub(crate) fn guest(page: PageRef, by: Via) -> String {
        format!("guest {page} {}", via(by))
    }

    pub(crate) fn host(place: Phys, by: Via) -> String {
        format!("host {place} {}", via(by))
    }

    pub(crate) fn bytes(place: Phys) -> String {
        format!("bytes {place}")
    }

    pub(crate) fn owner(place: Phys) -> String {
        format!("owner {place}")
    }

    pub(crate) fn state(page: PageRef) -> String {
        format!("state {page}")
    }

    pub(crate) fn version(page: PageRef) -> String {
        format!("version {page}")
    }

    pub(crate) fn latest(page: PageRef) -> String {
        format!("latest {page}")
    }

    pub(crate) fn held(page: PageRef) -> String {
        format!("held {page}")
    }

    pub(crate) fn handed(page: PageRef) -> String {
        format!("handed {page}")
    }

    pub(crate) fn guest_view(page: PageRef) -> String {
        format!("guest-view {page}")
    }

    pub(crate) fn host_view(page: PageRef) -> String {
        format!("host-view {page}")
    }

    pub(crate) fn vm(number: u8) -> String {
        format!("vm {number}")
    }

    pub(crate) fn seal(label: Label) -> String {
        format!("seal {label}")
    }
}

/// What breaks this clause now.
pub(super) fn culprits(id: &str, look: &Look) -> Vec<Culprit> {
    let pages = look.pages.iter();
    match id {
        "C1" => secrets_within_reach(look),
        "C2" => quiet(look).flat_map(|page| frame_within_reach(look, page)).collect(),
        "C3" => stored_in_the_open(look),
        "C4" => pages.filter_map(opened_by_nobody).collect(),
        "C6" => two_for_one_name(look),
        "C7" => alike(look),
        "C8" => left_behind(look),
        "C11" => pages.flat_map(|page| of_another_vm(look, page)).collect(),
        "I1" => pages.flat_map(|page| not_what_was_stored(look, page)).collect(),
        "I2" => look.noted.installs.iter().filter_map(|at| not_from_the_seal(look, at)).collect(),
        "I3" => pages.flat_map(|page| not_its_own(look, page)).collect(),
        "I5" => quiet(look).filter_map(|page| overwritten(look, page)).collect(),
        "I6" => {
            look.noted.installs.iter().filter_map(|at| not_what_was_checked(look, at)).collect()
        }
        "I7" => look.refused.iter().map(|page| refused_but_there(look, look.page(*page))).collect(),
        "I9" => ran_stopped(look),
        "F1" | "F3" => look.noted.installs.iter().filter_map(|at| another(look, id, at)).collect(),
        "F2" => version_again(look),
        "L1" => pages.filter_map(|page| gone_but_there(look, page)).collect(),
        "S1" => pages.filter(|page| page.busy).map(held_by_nobody).collect(),
        "S2" => {
            let closed = pages.filter(|page| page.ghost.closed);
            closed.flat_map(|page| reached_after_fault(look, page)).collect()
        }
        "S3" => pages.filter_map(|page| revived(look, page)).collect(),
        _ => Vec::new(),
    }
}

/// Pages that are their owner's alone.
fn quiet(look: &Look) -> impl Iterator<Item = &PageLook> {
    let quiet = |page: &&PageLook| matches!(page.state, PageState::Private | PageState::Replica);
    look.pages.iter().filter(quiet)
}

/// Each way in which the management side gets to a place.
fn reached(look: &Look, place: Phys) -> Vec<(Via, String)> {
    let describe = |via: Via| {
        let perm = look.host(place, via).map_or("", perm_word);
        let words = match via {
            Via::Table => format!("the management side has {place} mapped, {perm}"),
            Via::Cpu(cpu) if look.host_is_stale(place, via) => {
                format!(
                    "CPU {cpu} still remembers that the management side may reach {place}, {perm}"
                )
            }
            Via::Cpu(cpu) => {
                format!("CPU {cpu} remembers that the management side may reach {place}, {perm}")
            }
        };
        (via, words)
    };
    look.host_vias(place).map(describe).collect()
}

fn secrets_within_reach(look: &Look) -> Vec<Culprit> {
    let secret = look.places.iter().filter(|place| place.bytes.is_secret());
    let reached = secret.flat_map(|at| {
        reached(look, at.place).into_iter().map(|(via, words)| {
            let mut cells = vec![cell::host(at.place, via), cell::bytes(at.place)];
            let whose =
                |page: &&PageLook| page.frame == Some(at.place) || page.replica == Some(at.place);
            cells.extend(look.pages.iter().find(whose).map(|page| cell::host_view(page.page)));
            Culprit { words: format!("{words}; it holds {}", bytes_word(at.bytes)), cells }
        })
    });
    reached.collect()
}

fn frame_within_reach<'a>(look: &Look, page: &'a PageLook) -> impl Iterator<Item = Culprit> + 'a {
    let ways = page.frame.map(|frame| (frame, reached(look, frame)));
    ways.into_iter().flat_map(move |(frame, ways)| {
        ways.into_iter().map(move |(via, words)| Culprit {
            words: format!(
                "{words}; it is the frame of page {}, which is {}",
                page.page,
                state_word(page.state)
            ),
            cells: vec![cell::host(frame, via), cell::state(page.page), cell::host_view(page.page)],
        })
    })
}

fn stored_in_the_open(look: &Look) -> Vec<Culprit> {
    let Some(page) = look.just.stored.map(|page| look.page(page)) else { return Vec::new() };
    let Some(frame) = page.frame else { return Vec::new() };
    let culprit = |(via, words): (Via, String)| Culprit {
        words: format!("the guest stored to page {}, and {words}", page.page),
        cells: vec![cell::host(frame, via), cell::bytes(frame), cell::host_view(page.page)],
    };
    reached(look, frame).into_iter().map(culprit).collect()
}

fn opened_by_nobody(page: &PageLook) -> Option<Culprit> {
    let (_, perm, _) = page.state.terms()?;
    let words = match page.ghost.consent {
        Some(allowed) if allowed.allows(perm) => return None,
        Some(allowed) => format!("its guest agreed to less: {}", perm_word(allowed)),
        None => "its guest never agreed to that".to_owned(),
    };
    let cells = vec![cell::state(page.page), cell::host_view(page.page)];
    Some(Culprit { words: format!("page {} is open, and {words}", page.page), cells })
}

fn two_for_one_name(look: &Look) -> Vec<Culprit> {
    let same = |a: &Seal, b: &Seal| (a.label, a.terms) == (b.label, b.terms) && a.inner != b.inner;
    let pairs = look.known.iter().enumerate().flat_map(|(index, seal)| {
        look.known[..index].iter().filter(move |old| same(old, seal)).map(move |old| (old, seal))
    });
    let culprit = |(old, new): (&Seal, &Seal)| Culprit {
        words: format!(
            "two seals are called {}: one of {}, one of {}",
            new.label,
            plain_word(old.inner),
            plain_word(new.inner)
        ),
        cells: vec![cell::seal(new.label)],
    };
    pairs.map(culprit).collect()
}

fn not_what_was_stored(look: &Look, page: &PageLook) -> Vec<Culprit> {
    let wrong = look.guest_vias(page.page).filter(|(_, place)| {
        look.vm(page.page.vm).may_run && look.bytes(*place) != page.ghost.latest
    });
    let culprit = |(via, place): (Via, Phys)| Culprit {
        words: format!(
            "the guest finds its page {} in {place} ({}), which holds {}; it should find {}",
            page.page,
            via_word(via),
            bytes_word(look.bytes(place)),
            bytes_word(page.ghost.latest)
        ),
        cells: vec![
            cell::guest(page.page, via),
            cell::bytes(place),
            cell::guest_view(page.page),
            cell::latest(page.page),
        ],
    };
    wrong.map(culprit).collect()
}

fn not_from_the_seal(look: &Look, install: &Install) -> Option<Culprit> {
    let words = match install.from {
        Bytes::Sealed(seal) if Bytes::Plain(seal.inner) == install.got => return None,
        Bytes::Sealed(seal) => format!("the seal that was checked held {}", plain_word(seal.inner)),
        Bytes::Plain(_) => "what was checked is no seal at all".to_owned(),
    };
    let got = bytes_word(install.got);
    Some(Culprit {
        words: format!("page {} was given {got}, but {words}", install.page),
        cells: installed_cells(look, install),
    })
}

fn not_its_own(look: &Look, page: &PageLook) -> Vec<Culprit> {
    let running = look.vm(page.page.vm).may_run;
    let strange = look.guest_vias(page.page).filter(|(_, at)| !look.owns(page.page, *at));
    let whose = |place: Phys| {
        let owner = look.place(place).and_then(|at| at.owner);
        owner.map_or_else(|| "no frame of the table".to_owned(), ownership_word)
    };
    let mut culprits: Vec<Culprit> = strange
        .filter(|_| running)
        .map(|(via, at)| Culprit {
            words: format!(
                "the guest finds its page {} in {at} ({}), which is {}",
                page.page,
                via_word(via),
                whose(at)
            ),
            cells: vec![cell::guest(page.page, via), cell::owner(at), cell::guest_view(page.page)],
        })
        .collect();
    let quarantined = |at: Phys| {
        let owner = look.place(at).and_then(|at| at.owner);
        matches!(owner, Some(Ownership::Quarantined(..)))
    };
    let poisoned = page.state == PageState::Poisoned;
    let fine = |at: &Phys| if poisoned { quarantined(*at) } else { look.owns(page.page, *at) };
    if let Some(at) = page.frame.filter(|at| !page.busy && !fine(at)) {
        culprits.push(Culprit {
            words: format!("the row of page {} names {at}, which is {}", page.page, whose(at)),
            cells: vec![cell::state(page.page), cell::owner(at)],
        });
    }
    culprits
}

fn overwritten(look: &Look, page: &PageLook) -> Option<Culprit> {
    let frame = page.frame.filter(|frame| look.bytes(*frame) != page.ghost.latest)?;
    let (holds, latest) = (bytes_word(look.bytes(frame)), bytes_word(page.ghost.latest));
    Some(Culprit {
        words: format!(
            "{frame} backs page {} and holds {holds}; its guest stored last: {latest}",
            page.page
        ),
        cells: vec![cell::bytes(frame), cell::latest(page.page), cell::guest_view(page.page)],
    })
}

fn ran_stopped(look: &Look) -> Vec<Culprit> {
    let told = |vm: u8| Culprit {
        words: format!("a CPU of VM {vm} ran although the core says that it must not"),
        cells: vec![cell::vm(vm)],
    };
    let untold = |page: &PageLook| Culprit {
        words: format!(
            "a CPU of VM {} ran although page {} {}",
            page.page.vm,
            page.page,
            if page.ghost.building { "is being built" } else { "was poisoned" }
        ),
        cells: vec![cell::vm(page.page.vm), cell::state(page.page)],
    };
    let stopped = look.vms.iter().filter(|vm| vm.runs && !vm.may_run);
    let stops = |page: &&PageLook| {
        look.vm(page.page.vm).may_run && (page.ghost.building || page.ghost.poisoned)
    };
    let untold = look.pages.iter().filter(stops).map(untold);
    stopped.map(|vm| told(vm.number)).chain(untold).collect()
}

/// A seal that was accepted for another: F1 asks for the version, F3 for everything else.
fn another(look: &Look, id: &str, install: &Install) -> Option<Culprit> {
    let Bytes::Sealed(seal) = install.from else { return None };
    let own = Label::new(VmNumber(u16::from(install.page.vm)), &install.id);
    let told = seal.label;
    let same_version = told.version == own.version;
    let same_else = Label { version: own.version, ..told } == own;
    let fine = if id == "F1" { same_version } else { same_else };
    (!fine).then(|| Culprit {
        words: format!("page {} was given the seal {told}; its row says {own}", install.page),
        cells: installed_cells(look, install)
            .into_iter()
            .chain((!same_version).then(|| cell::version(install.page)))
            .chain([cell::seal(told)])
            .collect(),
    })
}

/// Where a page was opened into.
fn installed_cells(look: &Look, install: &Install) -> Vec<String> {
    let frame = look.page(install.page).frame.map(cell::bytes);
    frame.into_iter().chain([cell::state(install.page)]).collect()
}

fn version_again(look: &Look) -> Vec<Culprit> {
    let twice =
        look.noted.seals.iter().filter(|(_, known)| known.version).map(|(seal, _)| Culprit {
            words: format!("{} was made under a version that had been used before", seal.label),
            cells: vec![cell::seal(seal.label)],
        });
    let back = look.pages.iter().filter(|page| page.version < page.ghost.highest);
    let back = back.map(|page| Culprit {
        words: format!(
            "page {} is at version {} again; it was at {} in this epoch",
            page.page, page.version, page.ghost.highest
        ),
        cells: vec![cell::version(page.page)],
    });
    twice.chain(back).collect()
}

fn held_by_nobody(page: &PageLook) -> Culprit {
    Culprit {
        words: format!("page {} is held, and no batch is under way that could let go", page.page),
        cells: vec![cell::held(page.page)],
    }
}

fn reached_after_fault(look: &Look, page: &PageLook) -> Vec<Culprit> {
    let because = format!("page {} was closed after a fault", page.page);
    let guests = look.guest_vias(page.page).map(|(via, at)| Culprit {
        words: format!("{because}, and its guest still reaches {at} ({})", via_word(via)),
        cells: vec![cell::guest(page.page, via), cell::state(page.page)],
    });
    let frame = page.frame.map_or_else(Vec::new, |frame| {
        let ways = reached(look, frame).into_iter();
        let culprit = |(via, words): (Via, String)| Culprit {
            words: format!("{because}, and {words}"),
            cells: vec![cell::host(frame, via), cell::state(page.page)],
        };
        ways.map(culprit).collect()
    });
    guests.chain(frame).collect()
}

fn revived(look: &Look, page: &PageLook) -> Option<Culprit> {
    if !page.ghost.poisoned {
        return None;
    }
    let runs = look.vm(page.page.vm).may_run;
    let words = if page.state != PageState::Poisoned {
        format!("is {} again", state_word(page.state))
    } else if runs {
        "stays so, and its VM runs again".to_owned()
    } else {
        "stays so, and its frame was given out again".to_owned()
    };
    let cells = vec![cell::state(page.page), cell::vm(page.page.vm)];
    Some(Culprit { words: format!("page {} was poisoned and {words}", page.page), cells })
}

fn alike(look: &Look) -> Vec<Culprit> {
    let alike = look.noted.seals.iter().filter(|(_, known)| known.alike);
    let culprit = |seal: &Seal| Culprit {
        words: format!("the seal {} is the same bytes as one that was given out", seal.label),
        cells: vec![cell::seal(seal.label)],
    };
    alike.map(|(seal, _)| culprit(seal)).collect()
}

fn left_behind(look: &Look) -> Vec<Culprit> {
    let is_nobodys = |at: &&PlaceLook| match at.owner {
        Some(owner) => matches!(owner, Ownership::Free | Ownership::Offered(..)),
        None => look.pages.iter().all(|page| page.replica != Some(at.place)),
    };
    let left = look.places.iter().filter(is_nobodys).filter(|at| at.bytes.is_secret());
    let culprit = |at: &PlaceLook| Culprit {
        words: format!("{} backs no page and still holds {}", at.place, bytes_word(at.bytes)),
        cells: vec![cell::bytes(at.place), cell::owner(at.place)],
    };
    left.map(culprit).collect()
}

fn of_another_vm(look: &Look, page: &PageLook) -> Vec<Culprit> {
    let is_anothers = |at: Phys| {
        let owner = look.place(at).and_then(|at| at.owner);
        matches!(owner, Some(Ownership::Owned(vm, _)) if vm.0 != u16::from(page.page.vm))
    };
    let found = look.guest_vias(page.page).filter(|(_, at)| is_anothers(*at));
    let culprit = |(via, at): (Via, Phys)| Culprit {
        words: format!("the guest finds its page {} in {at}, of another VM", page.page),
        cells: vec![cell::guest(page.page, via), cell::owner(at), cell::guest_view(page.page)],
    };
    found.filter(|_| look.vm(page.page.vm).may_run).map(culprit).collect()
}

fn not_what_was_checked(look: &Look, install: &Install) -> Option<Culprit> {
    let checked = match install.from {
        Bytes::Sealed(seal) => Bytes::Plain(seal.inner),
        plain @ Bytes::Plain(_) => plain,
    };
    let (got, checked_word) = (bytes_word(install.got), bytes_word(checked));
    let words = format!("{checked_word} was checked, {got} is in page {}", install.page);
    (install.got != checked).then(|| Culprit { words, cells: installed_cells(look, install) })
}

fn refused_but_there(look: &Look, page: &PageLook) -> Culprit {
    let holds = page.frame.map_or(Bytes::ZERO, |at| look.bytes(at));
    let guest = look.guest_vias(page.page).map(|(via, _)| cell::guest(page.page, via));
    Culprit {
        words: format!(
            "what was opened in page {} is not genuine; its frame holds {}",
            page.page,
            bytes_word(holds)
        ),
        cells: page.frame.map(cell::bytes).into_iter().chain(guest).collect(),
    }
}

fn gone_but_there(look: &Look, page: &PageLook) -> Option<Culprit> {
    let ways: Vec<String> =
        look.guest_vias(page.page).map(|(via, _)| cell::guest(page.page, via)).collect();
    let replica = page.replica.map(cell::owner);
    let free = page.state == PageState::Free && !page.busy;
    let left =
        if ways.is_empty() { "it still has a replica" } else { "its guest still reaches it" };
    let cells: Vec<String> = ways.into_iter().chain(replica).collect();
    let words = format!("page {} is free, and {left}", page.page);
    (free && !cells.is_empty()).then(|| Culprit {
        words,
        cells: cells.into_iter().chain([cell::state(page.page)]).collect(),
    })
}
