//! Words in a guest's registers when it rings, and evidence carried to the wrong page: a page is
//! open only as its own guest's last act about it says, and deadlines are kept.

use arbitrary::Arbitrary;
use view_core::whitelist::{
    Doorbell, DoorbellFact, EvidenceSource, Expiry, Lease, Leases, NoEvidence, Proposal, Rule,
};
use view_core::{
    Act, Batch, Epoch, Field, Frame, Frames, Gfn, Mask, Owner, PageKind, PageState, Perm, Refused,
    Request, Slot, Vm, VmConfig, VmNumber,
};

use super::sealed::gfn;
use crate::obliging::Obliging;

const PAGES: usize = 4;
const FACTS_MAX: usize = 64;

/// A VM, and what its guest does.
#[derive(Arbitrary, Debug)]
pub struct Input {
    /// How many pages may be open at once.
    leases: u8,
    facts: Vec<Fact>,
}

/// A ring, and what is done with what it proves.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Fact {
    other_vm: bool,
    call: Word,
    gfn: Word,
    perm: Word,
    mask: Word,
    expiry: Word,
    /// Whether the act is done to the next page instead of the one it is about.
    astray: bool,
    /// Whether the management side then drops its mapping of the page.
    unmap: bool,
    now: Word,
}

/// A register: mostly small.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Word {
    Small(u8),
    Any(u64),
    FromEnd(u8),
}

impl Word {
    fn value(self) -> u64 {
        match self {
            Self::Small(number) => u64::from(number % 8),
            Self::Any(number) => number,
            Self::FromEnd(number) => u64::MAX - u64::from(number % 4),
        }
    }
}

/// What a page should be: open on these terms, or closed; and whether checkpoints leave it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Page {
    open: Option<(u64, u64, u64)>,
    excluded: bool,
}

/// Plays it.
///
/// # Panics
/// If a page is open without its guest's act, or otherwise than the act says.
pub fn check(input: &Input) {
    let slots = [const { Slot::new() }; PAGES];
    let owners = [const { Owner::new() }; PAGES];
    let leases = [const { Lease::new() }; PAGES];
    let room = usize::from(input.leases) % (PAGES + 1);
    let masks = [Mask(&[Field::fixed::<8, 8>()])];
    let vm = Vm::new(VmConfig {
        number: VmNumber(7),
        epoch: Epoch(1),
        pages: 4,
        slots: &slots,
        frames: Frames::new(&owners),
        leases: Leases::new(&leases[..room]),
        masks: &masks,
        replicas_max: 1,
    });
    let vm = vm.expect("as many rows as pages");
    vm.launch().expect("nothing is being built");
    for number in 0..4 {
        let frame = Frame::new(number).expect("small");
        vm.frames().offer(frame, vm.number(), gfn(number)).expect("a free frame");
        done(&vm, gfn(number), Act::Accept(frame)).expect("the page is free");
    }
    let mut pages = [Page::default(); PAGES];
    for fact in input.facts.iter().take(FACTS_MAX) {
        ring(&vm, *fact, &mut pages, room);
        compare(&vm, &pages, fact.now.value());
    }
}

fn done(vm: &Vm<'_>, page: Gfn, act: Act) -> Result<(), Refused> {
    let plan = vm.claim(page).expect("nobody holds it").act(act)?;
    let mut batch = Batch::<1>::new();
    batch.push(plan).expect("an empty batch has room");
    batch.run(&mut Obliging).expect("it obliges").commit();
    Ok(())
}

/// What a fact should prove, word by word in the order of the registers.
fn proof(fact: Fact) -> Result<(), NoEvidence> {
    let [call, page, perm, mask] = [fact.call, fact.gfn, fact.perm, fact.mask].map(Word::value);
    match call {
        _ if fact.other_vm => Err(NoEvidence::WrongVm),
        _ if page >= 4 => Err(NoEvidence::NoSuchPage(page)),
        1 if perm != 1 && perm != 3 => Err(NoEvidence::NoSuchPermission(perm)),
        1 if mask >= 64 => Err(NoEvidence::NoSuchMask(mask)),
        1..=4 => Ok(()),
        _ => Err(NoEvidence::NoSuchCall(call)),
    }
}

fn ring(vm: &Vm<'_>, fact: Fact, pages: &mut [Page; PAGES], room: usize) {
    let [call, page, perm, mask, expiry] =
        [fact.call, fact.gfn, fact.perm, fact.mask, fact.expiry].map(Word::value);
    let number = VmNumber(if fact.other_vm { 8 } else { 7 });
    let words = DoorbellFact { vm: number, call, gfn: page, perm, mask, expiry };
    let inferred = Doorbell.infer(vm, &words);
    assert_eq!(inferred.map(|_| ()), proof(fact));
    compare(vm, pages, fact.now.value());
    let Ok(proposal) = inferred else { return };
    if let Proposal::Share { evidence, .. } = proposal {
        assert!((0..4).all(|other| evidence.is_about(vm, gfn(other)) == (other == page)));
        assert_eq!(
            (evidence.kind(), evidence.source()),
            (PageKind::MAILBOX, EvidenceSource::Guest)
        );
    }
    let (about, act) = proposal.act();
    assert_eq!(about.number(), page);
    let target = if fact.astray { (page + 1) % 4 } else { page };
    let open = pages.iter().filter(|page| page.open.is_some()).count();
    let own = &mut pages[usize::try_from(target).expect("small")];
    let expected = match (call, own.open) {
        (1, _) if mask != 0 && perm == 3 => Err(Refused::NoSuchMask),
        (1, Some(_)) => Err(Refused::AlreadyOpen),
        (1, None) if fact.astray => Err(Refused::WrongEvidence),
        (1, None) if mask > 1 => Err(Refused::NoSuchMask),
        (1, None) if open == room => Err(Refused::ListFull),
        (2, None) => Err(Refused::NotOpen),
        _ => Ok(()),
    };
    assert_eq!(done(vm, gfn(target), act), expected, "{fact:?}");
    if expected.is_ok() {
        match call {
            1 => own.open = Some((perm, mask, expiry)),
            2 => own.open = None,
            _ => own.excluded = call == 3,
        }
    }
    if fact.unmap {
        unmap(vm, gfn(target), own);
    }
}

/// The management side drops its mapping: what was open for once is closed.
fn unmap(vm: &Vm<'_>, page: Gfn, own: &mut Page) {
    let plan = vm.claim(page).expect("nobody holds it").request(Request::Unmap);
    assert_eq!(plan.is_ok(), own.open.is_some());
    if let Ok(plan) = plan {
        let mut batch = Batch::<1>::new();
        batch.push(plan).expect("an empty batch has room");
        batch.run(&mut Obliging).expect("it obliges").commit();
        own.open = own.open.filter(|(_, _, expiry)| *expiry != u64::MAX);
    }
}

/// Every page is what it should be, and the list of deadlines has exactly those that are due.
fn compare(vm: &Vm<'_>, pages: &[Page; PAGES], now: u64) {
    let mut due: Vec<u64> = vm.leases().due(now).map(Gfn::number).collect();
    due.sort_unstable();
    let is_due = |expiry: u64| {
        let deadline = match expiry {
            0 => Expiry::Never,
            u64::MAX => Expiry::FirstUnmap,
            tick => Expiry::At(tick.min(u64::MAX - 2)),
        };
        matches!(deadline, Expiry::At(tick) if tick <= now)
    };
    let should = (0..).zip(pages).filter(|(_, page)| page.open.is_some_and(|open| is_due(open.2)));
    assert_eq!(due, should.map(|(number, _)| number).collect::<Vec<u64>>());
    for (number, page) in (0..).zip(pages) {
        let terms = vm.state(gfn(number)).and_then(PageState::terms);
        let found = terms.map(|(_, perm, mask)| (perm == Perm::ReadWrite, mask.number()));
        let should = page.open.map(|(perm, mask, _)| (perm == 3, u8::try_from(mask).unwrap_or(64)));
        assert_eq!(found, should, "page {number}");
        let claim = vm.claim(gfn(number)).expect("nobody holds it");
        assert_eq!(claim.entry().excluded, page.excluded);
    }
}
