//! What the gate hears from the guest: doorbells become facts, and facts the guest's own acts.

use std::collections::VecDeque;
use std::ops::Range;

use view_core::whitelist::{Doorbell as DoorbellRule, DoorbellFact, NoEvidence, Rule};
use view_core::{Act, Gfn, NotRunnable, PageState};

use super::guard::{Denied, Guard};
use crate::abi::{code, gfn};
use crate::exit::{Doorbell, GuestEvent, Malformed};
use crate::machine::{Handler, OnFault, Reply};

/// What this process wrote for the guest to run on: descriptors and page tables. Who could store to
/// them would choose what every address of the guest means.
const NOT_TO_SHARE: Range<u64> = gfn::GDT..gfn::BOOT;

/// How many of the guest's calls came to nothing, and what was said last on its console.
#[derive(Debug, Default)]
pub struct Heard {
    /// The console, newest bytes last; bounded.
    pub console: VecDeque<u8>,
    /// The exit code, once the guest ended.
    pub ended: Option<u8>,
    /// Doorbells that were refused.
    pub refused: u64,
    /// The latest malformed call.
    pub malformed: Option<Malformed>,
    /// What no fact proved.
    pub no_evidence: Option<NoEvidence>,
}

impl Guard {
    /// What a doorbell leads to, as the code that the guest gets.
    fn ring(&self, doorbell: Doorbell) -> u32 {
        let words = |call, gfn: Gfn, perm, mask, expiry| DoorbellFact {
            vm: self.vm().number(),
            call,
            gfn: gfn.number(),
            perm,
            mask,
            expiry,
        };
        let fact = match doorbell {
            Doorbell::Share { .. } if self.is_crowded() => return code::BUSY,
            Doorbell::Share { gfn, .. } if NOT_TO_SHARE.contains(&gfn.number()) => {
                self.heard().refused += 1;
                return code::REFUSED;
            }
            Doorbell::Share { gfn, perm, mask, expiry } => {
                let code = u64::from(perm.code());
                words(DoorbellRule::SHARE, gfn, code, u64::from(mask.number()), expiry)
            }
            Doorbell::Unshare { gfn } => words(DoorbellRule::UNSHARE, gfn, 0, 0, 0),
            Doorbell::Exclude { first, count } => return self.exclude(first, count),
            Doorbell::Step(_) => return code::DONE,
        };
        self.ring_fact(&fact)
    }

    fn exclude(&self, first: Gfn, count: u64) -> u32 {
        for number in first.number()..first.number().saturating_add(count) {
            let call = DoorbellRule::EXCLUDE;
            let vm = self.vm().number();
            let fact = DoorbellFact { vm, call, gfn: number, perm: 0, mask: 0, expiry: 0 };
            match self.ring_fact(&fact) {
                code::DONE => {}
                other => return other,
            }
        }
        code::DONE
    }

    fn ring_fact(&self, fact: &DoorbellFact) -> u32 {
        let answer = match DoorbellRule.infer(self.vm(), fact) {
            Ok(proposal) => {
                let (gfn, act) = proposal.act();
                match self.act(gfn, act) {
                    Ok(_) => code::DONE,
                    Err(Denied::Busy(_)) => code::BUSY,
                    Err(Denied::NoSuchPage(_)) => code::BAD_PAGE,
                    Err(
                        Denied::Refused(..)
                        | Denied::KeySpent
                        | Denied::Fault(_)
                        | Denied::Forged(_),
                    ) => code::REFUSED,
                }
            }
            Err(no) => {
                self.heard().no_evidence = Some(no);
                match no {
                    NoEvidence::NoSuchPage(_) => code::BAD_PAGE,
                    NoEvidence::NoSuchPermission(_) => code::BAD_PERM,
                    NoEvidence::NoSuchMask(_) => code::BAD_MASK,
                    NoEvidence::WrongVm | NoEvidence::NoSuchCall(_) => code::REFUSED,
                }
            }
        };
        if answer != code::DONE {
            self.heard().refused += 1;
        }
        answer
    }

    fn console(&self, byte: u8) {
        const KEPT: usize = 4096;
        let console = &mut self.heard().console;
        if console.len() == KEPT {
            console.pop_front();
        }
        console.push_back(byte);
    }
}

impl Handler for Guard {
    fn may_enter(&self, _vcpu: u8) -> bool {
        // [I9] A poisoned page ends the guest, whoever poisoned it.
        self.vm().runnable().is_ok()
    }

    fn event(&self, _vcpu: u8, event: GuestEvent) -> Reply {
        let answer = match event {
            GuestEvent::Doorbell(doorbell) => self.ring(doorbell),
            GuestEvent::Console(byte) => {
                self.console(byte);
                code::DONE
            }
            GuestEvent::End(byte) => {
                self.heard().ended = Some(byte);
                code::DONE
            }
            GuestEvent::Malformed(bad) => {
                let mut heard = self.heard();
                heard.malformed = Some(bad);
                heard.refused += 1;
                bad.what.code()
            }
            GuestEvent::Crashed(_) | GuestEvent::Unknown(_) => code::NOBODY,
        };
        Reply::Answer(answer)
    }

    fn fault(&self, _vcpu: u8) -> OnFault {
        if let Err(NotRunnable::Stopped(_)) = self.vm().runnable() {
            return OnFault::Stop;
        }
        // KVM does not say which page it was: what is sealed in place comes back.
        let closed: Vec<Gfn> = self.shared().views.closed().collect();
        for gfn in closed {
            if self.vm().state(gfn) == Some(PageState::Sealed)
                && let Err(Denied::Forged(_) | Denied::Fault(_)) = self.act(gfn, Act::Touch)
            {
                return OnFault::Stop;
            }
        }
        std::thread::yield_now();
        OnFault::Retry
    }
}
