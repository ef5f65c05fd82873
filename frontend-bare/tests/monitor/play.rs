//! How steps are played: by a hypervisor that keeps its guests going but for what a step says, and
//! by guests that know what they wrote.

use frontend_bare::calls;
use frontend_bare::exit_code::ExitCode;
use frontend_bare::vmcb::{Intercept, Vmcb};
use view_core::Ownership;

use crate::guest::{Guest, IMAGE, PAGES, block};
use crate::step::{Host, Own, Step};
use crate::world::{FRAMES, World};

impl World {
    /// Plays a step, and checks what must be true.
    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Guest(who, own, launched) => {
                if self.running != Some(who) || !self.rig.is_in_guest() {
                    self.leave();
                    self.enter(who, None);
                }
                let launches = launched && self.guests[who].number.is_none();
                if launches && self.rig.is_in_guest() {
                    self.guest_step(who, Own::Launch);
                }
                if self.rig.is_in_guest() {
                    self.guest_step(who, own);
                }
            }
            Step::Host(host) => {
                self.leave();
                self.host_step(host);
            }
            Step::Enter(who, index, word) => {
                self.leave();
                self.enter(who, Some((index, word)));
            }
        }
        self.remember_block();
        self.check();
    }

    /// The hypervisor is to run.
    fn leave(&mut self) {
        if self.rig.is_in_guest() {
            self.rig.interrupt();
            self.remember_block();
        }
    }

    /// What the hypervisor finds of a guest that came out.
    fn remember_block(&mut self) {
        if self.rig.ended.is_some() || self.rig.is_in_guest() {
            return;
        }
        if let Some(who) = self.running.take() {
            let mut page = self.rig.host_read_page(Guest(who as u64).block()).ok();
            if let Some(page) = &mut page {
                // Nothing is to be forgotten, whatever the hypervisor changes.
                Vmcb::of_page_mut(page).control.tlb_control = 0;
            }
            self.blocks[who] = page;
        }
    }

    /// Enters a guest, with its block as the hypervisor found it last, or changed.
    fn enter(&mut self, who: usize, change: Option<(usize, u64)>) {
        let guest = Guest(who as u64);
        let mut page = self.blocks[who].clone().unwrap_or_else(|| block(guest).as_page().clone());
        if let Some((index, word)) = change {
            page.bytes_mut().as_chunks_mut::<8>().0[index] = word.to_le_bytes();
        }
        let _ = self.rig.host_write_page(guest.block(), &page);
        let entered = self.rig.enter(guest.block());
        self.listen();
        self.running = Some(who);
        match (entered, self.guests[who].number) {
            (true, Some(_)) => self.has_registers(who),
            (true, None) => self.note("entered before launch"),
            (false, _) => {
                self.note("not entered");
                self.running = None;
                if change.is_none() && self.guests[who].number.is_none() {
                    self.make(who);
                }
            }
        }
    }

    fn host_step(&mut self, host: Host) {
        let rig = &mut self.rig;
        let guest = |who: usize| Guest(who as u64);
        match host {
            Host::Read(frame) => drop(rig.host_read(frame, 0)),
            Host::ReadPage(who, gfn) => {
                if let Some(frame) = self.frame_of(who, gfn) {
                    self.rig.host_read(frame, 0).unwrap();
                    self.note("page read");
                }
            }
            Host::WritePage(who, gfn, index, back) => {
                if let Some(frame) = self.frame_of(who, gfn) {
                    self.rig.host_touch(frame).unwrap();
                    if !back {
                        self.rig.host_write(frame, index, 0).unwrap();
                    }
                    self.note("page written");
                }
            }
            Host::Write(frame, index, word) => drop(rig.host_write(frame, index, word)),
            Host::Copy(from, to) => {
                if let Ok(page) = rig.host_read_page(from) {
                    let _ = rig.host_write_page(to, &page);
                }
            }
            Host::Propose(who, gfn, frame, bits) => {
                let place = (guest(who).table(1), gfn as usize);
                let _ = rig.host_write(place.0, place.1, frame << 12 | bits);
            }
            Host::Entry(who, level, index, entry) => {
                let _ = rig.host_write(guest(who).table(level), index, entry);
            }
            Host::Register(who, index) => rig.change_kept(guest(who).block(), index),
            Host::Operand(by, address) => {
                let was_in = self.rig.svm(by, address);
                if was_in == Some(13) {
                    self.note("operand refused");
                }
                // Whatever ran is no guest of ours.
                self.leave();
            }
            Host::SaveArea(value) => rig.write_msr(0xc001_0117, value),
            Host::Move(who, gfn, to) => self.move_page(who, gfn, guest(who).spare(to)),
            Host::Spy(spy, of, gfn, write) => self.spy(spy, of, gfn, write),
            Host::Repair(who) => self.repair(who),
            Host::Make(who) => self.make(who),
            Host::ShutDown => {
                rig.exit(ExitCode::By(Intercept::Shutdown), [0; 2]);
                self.end();
            }
        }
    }

    /// Where a page of a launched guest is.
    fn frame_of(&self, who: usize, gfn: u64) -> Option<u64> {
        let number = self.guests[who].number?;
        (0..FRAMES).find(|frame| {
            matches!(self.rig.owner(*frame), Some(Ownership::Owned(vm, of))
                if vm.0 == number && of.number() == gfn)
        })
    }

    fn move_page(&mut self, who: usize, gfn: u64, to: u64) {
        let Some(from) = self.frame_of(who, gfn) else { return };
        if self.rig.is_owned(to) || self.guests[who].open.contains_key(&gfn) {
            return;
        }
        let Ok(page) = self.rig.host_read_page(from) else { return };
        let guest = Guest(who as u64);
        let _ = self.rig.host_write_page(to, &page);
        let _ = self.rig.host_write(guest.table(1), gfn as usize, to << 12 | 7);
        self.note("moved");
    }

    /// The frame may be one that the spy had mapped before it was the other's.
    fn spy(&mut self, spy: usize, of: usize, gfn: u64, write: bool) {
        let launched = [spy, of].map(|who| self.guests[who].number.is_some());
        let frame = match self.frame_of(of, gfn) {
            Some(frame) => frame,
            None => Guest(of as u64).spare(gfn % 4),
        };
        if launched == [false, true] {
            let table = Guest(spy as u64).table(1);
            let _ = self.rig.host_write(table, gfn as usize, frame << 12 | 7);
            self.enter(spy, None);
            if self.rig.is_in_guest() {
                let act = if write { Own::Write(gfn, 0) } else { Own::Read(gfn, 0) };
                self.guest_step(spy, act);
                self.note("spy");
            }
        }
    }

    /// Tables as they should be, for all that is left of a guest.
    fn repair(&mut self, who: usize) {
        let guest = Guest(who as u64);
        for level in 2..=4 {
            let _ = self.rig.host_write(guest.table(level), 0, guest.table(level - 1) << 12 | 7);
        }
        for gfn in 0..PAGES {
            let found = self.frame_of(who, gfn);
            let is_free = !self.rig.is_owned(guest.frame(gfn));
            let frame = found.or_else(|| is_free.then_some(guest.frame(gfn)));
            if let Some(frame) = frame {
                let _ = self.rig.host_write(guest.table(1), gfn as usize, frame << 12 | 7);
            }
        }
    }

    fn make(&mut self, who: usize) {
        let guest = Guest(who as u64);
        self.repair(who);
        for gfn in 0..IMAGE {
            let _ = self.rig.host_write(guest.frame(gfn), 511, gfn);
        }
        let mut fresh = block(guest);
        if self.guests[who].number.is_some() {
            // Another root, by which the monitor knows that it is another guest.
            let root = guest.spare(5);
            let _ = self.rig.host_write(root, 0, guest.table(3) << 12 | 7);
            fresh.control.nested_cr3 = root << 12;
        }
        self.blocks[who] = Some(fresh.as_page().clone());
        self.rig.forget_kept(guest.block());
    }

    fn end(&mut self) {
        self.note("shut down");
        for known in &mut self.guests {
            *known = Default::default();
        }
    }
}

/// Guests' steps.
impl World {
    fn guest_step(&mut self, who: usize, own: Own) {
        match own {
            Own::Write(gfn, index) => self.write(who, gfn, index),
            Own::Read(gfn, index) => self.read(who, gfn, index),
            Own::Launch => {
                if self.rig.launch() == Some(0) {
                    self.is_launched(who);
                }
            }
            Own::Share(gfn, write) => self.share(who, gfn, write),
            Own::Unshare(gfn) => self.unshare(who, gfn),
            Own::Record(gfn) => {
                if self.rig.call(calls::RECORD, [gfn, 0, 0]) == Some(0) {
                    self.forget(who, gfn);
                    self.note("record");
                }
            }
            Own::End => drop(self.rig.call(calls::END, [0; 3])),
            Own::Interrupt => self.come_out(who, Intercept::Intr, 0),
            Own::Halt => self.come_out(who, Intercept::Hlt, 1),
            Own::Cpuid => self.come_out(who, Intercept::Cpuid, 2),
            Own::Call(number, operands) => self.call(who, number, operands),
        }
    }

    fn come_out(&mut self, who: usize, by: Intercept, length: u64) {
        if self.guests[who].number.is_some() {
            self.fill(who);
        }
        self.rig.exit_by(by, [0; 2], length);
    }

    /// Any call with any operands; but pages are opened by those that know what they do.
    fn call(&mut self, who: usize, number: u64, operands: [u64; 3]) {
        if [calls::SHARE, calls::UNSHARE, calls::RECORD].contains(&number) && operands[0] < PAGES {
            return;
        }
        let was_launched = self.guests[who].number.is_some();
        // A hypervisor sees the operands of a call that is its own; this is one of them.
        self.rig.cpu().1.general.rsi = 0;
        let answer = self.rig.call(number, operands);
        if number == calls::LAUNCH && answer == Some(0) && !was_launched {
            self.is_launched(who);
        }
    }

    fn share(&mut self, who: usize, gfn: u64, write: bool) {
        if self.guests[who].number.is_some() && !self.declassify(who, gfn) {
            return;
        }
        let perm = if write { 3 } else { 1 };
        if self.rig.call(calls::SHARE, [gfn, perm, 0]) == Some(0) {
            self.guests[who].open.insert(gfn, write);
            if write {
                self.forget(who, gfn);
            }
            self.note("share");
        }
    }

    fn unshare(&mut self, who: usize, gfn: u64) {
        if self.rig.call(calls::UNSHARE, [gfn, 0, 0]) == Some(0) {
            self.guests[who].open.remove(&gfn);
            self.note("unshare");
        }
    }
}
