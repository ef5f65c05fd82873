//! What events, states and bytes are called for a reader who meets them for the first time.

use view_core::{Ownership, PageState, Perm, View};

use super::look::Via;
use crate::bytes::{Bytes, Plain, stream_name};
use crate::event::{Ask, Event, FaultTime, Handed, PageRef, Term};
use crate::table;

/// Who moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mover {
    Guest,
    Management,
    Trusted,
    Host,
}

impl Mover {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Management => "management",
            Self::Trusted => "trusted",
            Self::Host => "host",
        }
    }
}

/// Who makes an event happen.
pub(super) const fn mover(event: Event) -> Mover {
    match event {
        Event::GuestLoad(..) | Event::GuestStore(..) => Mover::Guest,
        Event::ManageLoad(..)
        | Event::ManageStore(..)
        | Event::ManageMap(_)
        | Event::Offer(..)
        | Event::Retract(..)
        | Event::Hand(..)
        | Event::Claim(_) => Mover::Management,
        Event::Begin(_, _, ask) | Event::Join(_, _, ask) => asker(ask),
        Event::Step(_) | Event::Drop(_) | Event::LaunchVm(_) | Event::Tick => Mover::Trusted,
        Event::Fault(..) | Event::Restart => Mover::Host,
    }
}

const fn asker(ask: Ask) -> Mover {
    match ask {
        Ask::Map(_)
        | Ask::Unmap
        | Ask::Export(_)
        | Ask::Seal
        | Ask::PageOut
        | Ask::PageIn(_)
        | Ask::Destroy => Mover::Management,
        Ask::Accept(_) | Ask::Launch => Mover::Trusted,
        Ask::Touch | Ask::Share(..) | Ask::Unshare | Ask::Exclude(_) => Mover::Guest,
    }
}

/// An event as a sentence without its end: what follows may be `.` or what became of it.
pub(super) fn sentence(event: Event) -> String {
    match event {
        Event::GuestLoad(cpu, page) => format!("The guest loads from its page {page} on CPU {cpu}"),
        Event::GuestStore(cpu, page) => {
            format!("The guest stores new bytes to its page {page} on CPU {cpu}")
        }
        Event::ManageLoad(cpu, place) => {
            format!("The management side loads from {place} on CPU {cpu}")
        }
        Event::ManageStore(cpu, place) => {
            format!("The management side stores bytes of its own to {place} on CPU {cpu}")
        }
        Event::ManageMap(frame) => {
            format!("The management side maps the raw frame f{frame} for itself")
        }
        Event::Offer(frame, page) => {
            format!("The management side offers frame f{frame} to page {page}")
        }
        Event::Retract(frame, page) => {
            format!("The management side takes its offer of frame f{frame} to page {page} back")
        }
        Event::Hand(page, Handed::Forged) => {
            format!("The management side will hand over bytes of its own making for page {page}")
        }
        Event::Hand(page, Handed::Known(label)) => {
            format!("The management side will hand over the seal {label} for page {page}")
        }
        Event::Claim(page) => {
            format!("The management side claims that page {page} is harmless and may be opened")
        }
        Event::Begin(_, page, ask) | Event::Join(_, page, ask) => asking(page, ask),
        Event::Step(cpu) => format!("CPU {cpu} takes one step of its batch"),
        Event::Drop(cpu) => format!("CPU {cpu} drops its batch"),
        Event::Fault(cpu, FaultTime::Early) => {
            format!("CPU {cpu} takes one step of its batch; the platform fails and does nothing")
        }
        Event::Fault(cpu, FaultTime::Late) => {
            format!(
                "CPU {cpu} takes one step of its batch; the platform does it, then says it failed"
            )
        }
        Event::LaunchVm(vm) => format!("The trusted side launches VM {vm}"),
        Event::Tick => "The trusted side's clock ticks".to_owned(),
        Event::Restart => {
            "The host crashes and starts again: memory is lost, sealed pages are not".to_owned()
        }
    }
}

fn asking(page: PageRef, ask: Ask) -> String {
    match ask {
        Ask::Map(perm) => {
            format!("The management side asks to map page {page}, {}", perm_word(perm))
        }
        Ask::Unmap => format!("The management side asks to drop its mapping of page {page}"),
        Ask::Export(stream) => {
            let stream = stream_name(stream);
            format!("The management side asks for a sealed copy of page {page} ({stream})")
        }
        Ask::Seal => format!("The management side asks to seal page {page} in its own frame"),
        Ask::PageOut => format!("The management side asks to page {page} out and take its frame"),
        Ask::PageIn(frame) => {
            format!("The management side asks to page {page} in again, in frame f{frame}")
        }
        Ask::Destroy => format!("The management side asks to end page {page}"),
        Ask::Accept(frame) => format!("The trusted side accepts frame f{frame} for page {page}"),
        Ask::Launch => format!("The trusted side declares page {page} built"),
        Ask::Touch => format!("The guest touches page {page}, which it does not have in plain"),
        Ask::Share(perm, term) => {
            let (perm, term) = (perm_word(perm), term_word(term));
            format!("The guest rings its doorbell to open page {page}, {perm}, {term}")
        }
        Ask::Unshare => format!("The guest rings its doorbell to close page {page} again"),
        Ask::Exclude(true) => format!("The guest asks to leave page {page} out of checkpoints"),
        Ask::Exclude(false) => format!("The guest asks to take page {page} into checkpoints"),
    }
}

pub(super) const fn perm_word(perm: Perm) -> &'static str {
    match perm {
        Perm::Read => "to read",
        Perm::ReadWrite => "to read and write",
    }
}

const fn term_word(term: Term) -> &'static str {
    match term {
        Term::Never => "without a limit",
        Term::Once => "until it is first unmapped",
        Term::Tick => "until the clock ticks",
    }
}

pub(super) const fn view_word(view: View) -> &'static str {
    match view {
        View::Owner => "the guest",
        View::Management => "the management side",
    }
}

/// A page's state, with the terms on which it is open.
pub(super) fn state_word(state: PageState) -> String {
    match state.terms() {
        Some((_, Perm::Read, _)) => "Open, read".to_owned(),
        Some((_, Perm::ReadWrite, _)) => "Open, write".to_owned(),
        None => table::name(state).to_owned(),
    }
}

pub(super) fn ownership_word(owner: Ownership) -> String {
    match owner {
        Ownership::Free => "nobody's".to_owned(),
        Ownership::Offered(vm, gfn) => format!("offered to page {}:{}", vm.0, gfn.number()),
        Ownership::Owned(vm, gfn) => format!("backs page {}:{}", vm.0, gfn.number()),
        Ownership::Quarantined(vm, gfn) => {
            format!("quarantined, was page {}:{}", vm.0, gfn.number())
        }
    }
}

/// Who found a way to a page.
pub(super) fn via_word(via: Via) -> String {
    match via {
        Via::Table => "table".to_owned(),
        Via::Cpu(cpu) => format!("CPU {cpu}"),
    }
}

/// Stores are counted from one.
pub(super) fn plain_word(plain: Plain) -> String {
    match plain {
        Plain::Zero => "zeroes".to_owned(),
        Plain::Public => "management's own bytes".to_owned(),
        Plain::Shared(store) => format!("store {}, shown", store + 1),
        Plain::Secret(store) => format!("store {}, secret", store + 1),
    }
}

/// What somebody who reaches these bytes has.
pub(super) fn bytes_word(bytes: Bytes) -> String {
    match bytes {
        Bytes::Plain(plain) => plain_word(plain),
        Bytes::Sealed(seal) => format!("the sealed bytes {}", seal.label),
    }
}

/// A class for the look of bytes; the words say the same.
pub(super) const fn bytes_class(bytes: Bytes) -> &'static str {
    match bytes {
        Bytes::Plain(Plain::Zero) => "zero",
        Bytes::Plain(Plain::Public) => "public",
        Bytes::Plain(Plain::Shared(_)) => "shown",
        Bytes::Plain(Plain::Secret(_)) => "secret",
        Bytes::Sealed(_) => "sealed",
    }
}
