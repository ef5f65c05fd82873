//! The demo where there is no KVM: the shipped core and ciphers on the simulated machine, and a
//! guest that is a few lines of this file, doing what the real one does.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use frontend_kvm::abi::{WORDS, gfn, mailbox};
use frontend_kvm::control::client::SeenPage;
use frontend_kvm::guest::place;
use frontend_kvm::image_file::{self, ImageFile, ImageFileError};
use frontend_kvm::trusted::{Ciphers, Incarnation, random};
use frontend_kvm::{Mode, Program};
use sim::software::{Software, StreamCiphers};
use view_core::image::{Header, ImageRoot};
use view_core::key::{RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{PageCipher, Stream};
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Batch, Epoch, Frame, Frames, Gfn, Owner, Page, PageState, Perm, Receipt, Request, Slot,
    Vm, VmConfig, VmId, VmNumber,
};
use zeroize::Zeroizing;

use super::{Opened, Stage, Taken, contains};
use crate::output::Failed;

/// Steps that the guest takes while it is waited for.
const STEPS: u64 = 1000;

/// A guest that counts, keeps a secret and shares its mailbox.
pub(super) fn stage(pages: usize) -> Result<Box<dyn Stage>, Failed> {
    let key = RootKey::new(random()?);
    let entropy = Zeroizing::new(random::<32>()?);
    let program = Program::new(Mode::Counter, &entropy);
    let incarnation = Incarnation { vm: VmId(random()?), epoch: Epoch(1), salt: Salt(random()?) };
    let mut stage = Simulated::build(key, incarnation, pages)?;
    stage.launch()?;
    for page in 0..program.boot.secret_pages {
        let secret = program.secret(page);
        stage.store(gfn::SECRET + page, 0, secret.bytes())?;
    }
    stage.secret = program.secret(0).bytes()[..32].to_vec();
    stage.share_mailbox()?;
    stage.run(STEPS)?;
    Ok(Box::new(stage))
}

struct Simulated {
    vm: Vm<'static>,
    machine: Software<'static, SivCmac512>,
    ciphers: Ciphers,
    key: RootKey,
    incarnation: Incarnation,
    secret: Vec<u8>,
    /// The guest's one register.
    steps: u64,
}

impl Simulated {
    fn build(key: RootKey, incarnation: Incarnation, pages: usize) -> Result<Self, Failed> {
        let ciphers = Ciphers::new(&key, &incarnation);
        let cipher = |stream: Stream| SivCmac512::new(&ciphers.epoch.siv(stream.id()));
        let streams = StreamCiphers {
            view: cipher(Stream::View),
            resident: cipher(Stream::Resident),
            image: cipher(Stream::Image),
        };
        // The demo's tables live as long as the demo.
        let vm = Vm::new(VmConfig {
            number: VmNumber(1),
            epoch: incarnation.epoch,
            pages: pages as u64,
            slots: Box::leak((0..pages).map(|_| Slot::new()).collect()),
            frames: Frames::new(Box::leak((0..pages).map(|_| Owner::new()).collect())),
            leases: Leases::new(Box::leak((0..8).map(|_| Lease::new()).collect())),
            masks: &[],
            replicas_max: 64,
        })?;
        let machine = Software::new(pages, streams, &[]);
        let secret = Vec::new();
        let mut this = Self { vm, machine, ciphers, key, incarnation, secret, steps: 0 };
        for gfn in this.vm.gfns() {
            let frame = Frame::new(gfn.number())?;
            let offered = this.vm.frames().offer(frame, this.vm.number(), gfn);
            offered.map_err(|_| Failed::new("a frame is taken"))?;
            this.act(gfn, Act::Accept(frame))?;
        }
        Ok(this)
    }

    fn launch(&mut self) -> Result<(), Failed> {
        for gfn in self.vm.gfns() {
            self.act(gfn, Act::Launch)?;
        }
        self.vm.launch().map_err(|why| Failed::new(format!("{why:?}")))
    }

    fn act(&mut self, gfn: Gfn, act: Act) -> Result<Receipt, Failed> {
        let plan = self.vm.claim(gfn)?.act(act)?;
        carry_out(plan, &mut self.machine)
    }

    fn request(&mut self, gfn: Gfn, request: Request) -> Result<Receipt, Failed> {
        let plan = self.vm.claim(gfn)?.request(request)?;
        carry_out(plan, &mut self.machine)
    }

    fn share_mailbox(&mut self) -> Result<(), Failed> {
        self.store(gfn::MAILBOX, 0, &mailbox::GREETING)?;
        for word in mailbox::FILLING..WORDS {
            let filling = mailbox::FILLING_WORD.to_le_bytes();
            self.store(gfn::MAILBOX, word, &filling)?;
        }
        let (vm, call, gfn) = (self.vm.number(), Doorbell::SHARE, gfn::MAILBOX);
        let fact = DoorbellFact { vm, call, gfn, perm: 1, mask: 0, expiry: 0 };
        let proposal = Doorbell.infer(&self.vm, &fact);
        let (gfn, act) = proposal.map_err(|no| Failed::new(format!("{no:?}")))?.act();
        self.act(gfn, act).map(|_| ())
    }

    /// A store of the guest, at a word of a page.
    fn store(&mut self, page: u64, word: u64, bytes: &[u8]) -> Result<(), Failed> {
        let offset = usize::try_from(word * 8)?;
        if self.machine.owner_store(place(page), offset, bytes) {
            Ok(())
        } else {
            Err(Failed::new(format!("the guest's store to page {page:#x} faulted")))
        }
    }

    /// Lets the guest take steps: the counter in two pages, then the mailbox.
    fn run(&mut self, steps: u64) -> Result<(), Failed> {
        self.vm.runnable().map_err(|why| Failed::new(format!("{why:?}")))?;
        for _ in 0..steps {
            self.steps += 1;
            let bytes = self.steps.to_le_bytes();
            self.store(gfn::COUNTER_A, 0, &bytes)?;
            self.store(gfn::COUNTER_B, 0, &bytes)?;
        }
        let bytes = self.steps.to_le_bytes();
        self.store(gfn::MAILBOX, mailbox::STEPS, &bytes)
    }

    fn see(&mut self, gfn: Gfn) -> Result<SeenPage, Failed> {
        let state = self.vm.state(gfn).ok_or(Failed::new("no such page"))?;
        let number = gfn.number();
        if state.terms().is_some() {
            self.request(gfn, Request::Map(Perm::Read))?;
            let bytes = self.machine.management_load(gfn).ok_or(Failed::new("not mapped"))?;
            return Ok(SeenPage {
                gfn: number,
                state,
                sealed: None,
                bytes: Box::new(bytes.clone()),
            });
        }
        let receipt = self.request(gfn, Request::Export(Stream::View))?;
        let bytes = self.machine.take_wire(gfn).ok_or(Failed::new("nothing on the wire"))?;
        let sealed = receipt.sealed.map(|(id, tag)| (id.version.number(), tag));
        Ok(SeenPage { gfn: number, state, sealed, bytes })
    }

    fn restored(&self, image: &File, pinned: ImageRoot) -> Result<Self, Failed> {
        let image = ImageFile::open(&self.key, image)?;
        let manifest = image.verify(Some(pinned))?;
        let state = image.state(&manifest)?;
        let header = image.header();
        let epoch = Epoch(header.epoch.0 + 1);
        let incarnation = Incarnation { vm: header.vm, epoch, salt: Salt(random()?) };
        let mut this = Self::build(self.key.clone(), incarnation, image.pages())?;
        let machine = &mut this.machine;
        image.bodies::<Failed>(&manifest, |record, page| {
            let filled = machine.fill(record.gfn(), page);
            filled.map_err(|_| Failed::new("no such page"))
        })?;
        this.launch()?;
        let steps = state.first_chunk().ok_or(Failed::new("the image has no register"))?;
        this.steps = u64::from_le_bytes(*steps);
        this.secret.clone_from(&self.secret);
        this.share_mailbox()?;
        Ok(this)
    }
}

fn carry_out(
    plan: view_core::Plan<'_>,
    machine: &mut Software<'static, SivCmac512>,
) -> Result<Receipt, Failed> {
    let mut batch = Batch::<1>::new();
    let _ = batch.push(plan);
    let faulted = |fault| Failed::new(format!("the machine failed: {fault:?}"));
    let receipts = batch.run(machine).map_err(faulted)?;
    let receipt = receipts.iter().next();
    receipts.commit();
    receipt.ok_or(Failed::new("no receipt"))
}

impl Stage for Simulated {
    fn guest_page(&mut self, gfn: u64) -> Result<Page, Failed> {
        let page = self.machine.owner_load(place(gfn));
        page.cloned().ok_or_else(|| Failed::new(format!("the guest's load of {gfn:#x} faulted")))
    }

    fn look(&mut self, first: u64, count: u64) -> Result<Vec<SeenPage>, Failed> {
        (first..first + count).map(|number| self.see(place(number))).collect()
    }

    fn states(&mut self) -> Result<Vec<PageState>, Failed> {
        Ok(self.vm.gfns().filter_map(|gfn| self.vm.state(gfn)).collect())
    }

    /// The simulated guest stands still for the whole of it.
    fn snapshot(&mut self) -> Result<Taken, Failed> {
        let still = Instant::now();
        let state = Zeroizing::new(self.steps.to_le_bytes().to_vec());
        let header = Header {
            vm: self.incarnation.vm,
            epoch: self.incarnation.epoch,
            salt: self.incarnation.salt,
            suite: SivCmac512::SUITE,
            sequence: self.steps,
            pages: self.vm.pages(),
            state_len: state.len() as u64,
        };
        let mut bytes = Vec::new();
        let key = self.ciphers.epoch.clone();
        image_file::write(&mut bytes, &key, &header, &state, |first| {
            let gfn = Gfn::new(first as u64)?;
            let receipt = self.request(gfn, Request::Export(Stream::Image))?;
            let page = self.machine.take_wire(gfn);
            Ok::<_, Failed>(vec![(receipt, page)])
        })?;
        Ok(Taken { bytes, stall: still.elapsed() })
    }

    fn open(&self, image: &[u8], needle: &[u8]) -> Result<Opened, Failed> {
        let file = file(image)?;
        let image = ImageFile::open(&self.key, &file)?;
        let manifest = image.verify(None)?;
        let mut pages_with_secret = 0;
        image.bodies::<ImageFileError>(&manifest, |_, page| {
            pages_with_secret += u64::from(contains(page.bytes(), needle));
            Ok(())
        })?;
        Ok(Opened { root: manifest.root(), pages_with_secret })
    }

    fn restore(&self, image: &[u8], pinned: ImageRoot) -> Result<Box<dyn Stage>, Failed> {
        let restored = self.restored(&file(image)?, pinned);
        restored
            .map(|stage| Box::new(stage) as Box<dyn Stage>)
            .map_err(|refused| Failed::new(format!("{refused}; nothing was restored")))
    }

    fn secret(&self) -> Vec<u8> {
        self.secret.clone()
    }

    fn wait(&mut self) {
        // A guest that can't run shows in what is looked at next.
        let _ = self.run(STEPS);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn file(image: &[u8]) -> Result<File, Failed> {
    let mut file = tempfile::tempfile()?;
    file.write_all(image)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
