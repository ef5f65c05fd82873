//! Launch: the hypervisor has loaded an image; from here on it is the guest's, and everybody knows
//! what it was.

use sha2::{Digest, Sha256};
use view_core::key::{RootKey, Salt};
use view_core::registers::Registers;
use view_core::whitelist::{Lease, Leases};
use view_core::{Act, Epoch, Gfn, Page, PageKind, PageState, Slot, Vm, VmConfig, VmId, VmNumber};

use super::{Broken, Veiled};
use crate::ciphers::Ciphers;
use crate::desk::Desk;
use crate::hypervisor_table::HypervisorTable;
use crate::machine::Machine;
use crate::table::{Levels, NestedTable};

/// Room for one guest's rows.
#[derive(Clone, Copy, Debug)]
pub struct Storage<'m> {
    /// One row for each of its pages: so many it can have at most.
    pub slots: &'m [Slot],
    /// One for each page that it can have open at once.
    pub leases: &'m [Lease],
}

/// What a guest names when it asks to be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The first page of its image.
    pub first: u64,
    /// How many pages the image has.
    pub count: u64,
    /// How many pages the guest has in all, from 0 on. Those outside of the image begin as zeroes.
    pub pages: u64,
}

/// What a guest was when it was launched: for its own eyes, for the console, and for whoever knows
/// what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchRecord {
    /// SHA-256 over [`LaunchRecord::FORMAT`], the image's numbers, the initial state of the virtual
    /// CPU, and of each page of the image its number, its kind in a byte, and its bytes. Numbers
    /// are 64 bits, little-endian.
    pub measurement: [u8; 32],
    /// What was measured.
    pub image: Image,
}

/// Why a guest cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLaunched {
    /// Some page of the image is behind the last page, or there are more pages than rows, or none.
    Image(Image),
    /// The hypervisor has to propose a frame for this page first, as for a write.
    NeedsFrame(Gfn),
    /// No frame is left for the guest's tables.
    NoTable,
    /// The guest is broken before it began.
    Broken(Broken),
}

impl LaunchRecord {
    /// Bytes that a record has in a page: magic, measurement, and the three numbers of the image.
    pub const BYTES: usize = 8 + 32 + 3 * 8;
    /// What a measurement begins with, and a record in a page.
    pub const FORMAT: [u8; 8] = *b"PVlaunc1";

    /// The record as a guest reads it.
    pub fn write(&self, page: &mut Page) {
        let Image { first, count, pages } = self.image;
        let words = [first, count, pages].map(u64::to_le_bytes);
        let parts = Self::FORMAT.iter().chain(&self.measurement).chain(words.as_flattened());
        for (byte, from) in page.bytes_mut().iter_mut().zip(parts) {
            *byte = *from;
        }
    }
}

impl<'m> Veiled<'m> {
    /// Launches a guest: the monitor copies each page of the image out of the frame that the
    /// hypervisor proposes, measures the copy, takes the frame, and puts the copy back.
    ///
    /// # Errors
    /// [`NotLaunched`]; up to [`NotLaunched::NeedsFrame`] nothing has changed. After
    /// [`NotLaunched::Broken`] what was taken is scrubbed.
    pub fn launch<M: Machine>(
        desk: &mut Desk<'_, 'm, M>,
        (number, epoch, storage): (VmNumber, Epoch, Storage<'m>),
        (root, proposals): (&RootKey, &HypervisorTable),
        (image, state): (Image, &Registers),
    ) -> Result<Self, NotLaunched> {
        let gfns = image.gfns(storage.slots.len())?;
        for gfn in gfns.clone() {
            let found = desk.find(proposals, (gfn, true)).filter(|found| found.writable);
            found.ok_or(NotLaunched::NeedsFrame(gfn))?;
        }
        let config = VmConfig {
            number,
            epoch,
            pages: image.pages,
            slots: storage.slots,
            frames: desk.frames(),
            leases: Leases::new(storage.leases),
            masks: &[],
            replicas_max: 0,
        };
        let vm = Vm::new(config).map_err(|_| NotLaunched::Image(image))?;
        let table = NestedTable::new(desk.machine, &mut desk.views.pool, Levels::Four);
        let table = table.map_err(|_| NotLaunched::NoTable)?;
        let (id, salt) = (VmId(desk.machine.random()), Salt(desk.machine.random()));
        let ciphers = Ciphers::new(root, &id, (epoch, &salt));
        let record = LaunchRecord { measurement: [0; 32], image };
        let mut guest = Self { vm, slots: storage.slots, table, ciphers, record };
        let mut hash = image.begin_measurement(state);
        for gfn in gfns {
            if let Err(broken) = guest.take(desk, proposals, (gfn, &mut hash)) {
                guest.end(desk);
                return Err(NotLaunched::Broken(broken));
            }
        }
        guest.record.measurement = hash.finalize().into();
        if guest.vm.launch().is_err() {
            guest.end(desk);
            return Err(NotLaunched::Image(image));
        }
        Ok(guest)
    }

    /// One page of the image: read once, measured as it is then put in place.
    fn take<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        proposals: &HypervisorTable,
        (gfn, hash): (Gfn, &mut Sha256),
    ) -> Result<(), Broken> {
        let missing = Broken::Core(gfn, view_core::Refused::Absent);
        let frame = self.proposed(desk, proposals, gfn)?.ok_or(missing)?;
        let bytes = desk.copy(frame);
        hash.update(gfn.number().to_le_bytes());
        hash.update([PageKind::MEMORY.0]);
        hash.update(bytes.bytes());
        let offered = desk.frames().offer(frame, self.vm.number(), gfn);
        offered.map_err(|_| Broken::Foreign(gfn, frame, desk.frames().owner(frame)))?;
        self.act(desk, gfn, Act::Accept(frame))?;
        desk.machine.write(frame, &bytes);
        self.act(desk, gfn, Act::Launch)
    }

    /// Writes the record into a private page of the guest's, at its own wish. False if it is none.
    pub fn tell_record<M: Machine>(&self, desk: &mut Desk<'_, 'm, M>, gfn: Gfn) -> bool {
        use view_core::page_table::PageNumbers;
        let private = self.vm.state(gfn) == Some(PageState::Private);
        let Some(frame) = self.vm.frame(gfn).filter(|_| private) else { return false };
        let mut page = desk.copy(frame);
        self.record.write(&mut page);
        desk.machine.write(frame, &page);
        true
    }
}

impl Image {
    fn gfns(self, rows: usize) -> Result<impl Iterator<Item = Gfn> + Clone, NotLaunched> {
        let end = self.first.checked_add(self.count).filter(|end| *end <= self.pages);
        let fits = self.count > 0 && self.pages <= rows as u64;
        let end = end.filter(|_| fits).ok_or(NotLaunched::Image(self))?;
        Ok((self.first..end).map_while(|number| Gfn::new(number).ok()))
    }

    fn begin_measurement(self, state: &Registers) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(LaunchRecord::FORMAT);
        for number in [self.first, self.count, self.pages] {
            hash.update(number.to_le_bytes());
        }
        for word in state.words() {
            hash.update(word.to_le_bytes());
        }
        hash
    }
}
