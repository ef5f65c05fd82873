//! Makes a trace short: takes out whatever the same clause breaks without.
//!
//! Delta debugging (Zeller and Hildebrandt, TSE 2002). Any part of a trace is a trace, so there is
//! nothing to repair when events are taken out.

use crate::event::Event;
use crate::swarm::fate;
use crate::trace::Trace;

/// The trace without the events that its first broken clause breaks without. No single event can
/// be taken out of what comes back. A trace that breaks nothing comes back as it is.
pub fn shrink(mut trace: Trace) -> Trace {
    let Some(clause) = trace.breaks.first().copied() else { return trace };
    let Some(mut events) = breaking(&trace, &trace.events, clause) else { return trace };
    let mut size = events.len().div_ceil(2);
    loop {
        let before = events.len();
        let mut start = 0;
        while start < events.len() {
            let end = events.len().min(start + size);
            let rest = [&events[..start], &events[end..]].concat();
            match breaking(&trace, &rest, clause) {
                Some(shorter) => events = shorter,
                None => start = end,
            }
        }
        if size > 1 {
            size = size.div_ceil(2);
        } else if events.len() == before {
            break;
        }
    }
    let mutant = trace.mutant.map(|entry| entry.mutant);
    if let Some((_, broken)) = fate(trace.config, mutant, &events) {
        trace.breaks = broken;
    }
    trace.events = events;
    trace
}

/// The events up to the first violation, if the clause is part of it.
fn breaking(trace: &Trace, events: &[Event], clause: &str) -> Option<Vec<Event>> {
    let mutant = trace.mutant.map(|entry| entry.mutant);
    let (count, broken) = fate(trace.config, mutant, events)?;
    broken.contains(&clause).then(|| events[..count].to_vec())
}
