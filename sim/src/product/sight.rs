//! What the management side sees of a run, and when it can tell two runs apart.
//!
//! Everything is compared as it is but sealed bytes, which are compared modulo sealing: all that
//! can be told of them without the key is what they say about themselves and which of them are
//! equal. So two runs look alike as long as their sealed pages stand for each other one to one.

use view_core::{Ownership, PageState, Perm, Refused};

use crate::bytes::{Bytes, Plain, Seal};
use crate::event::{Ask, Event, PageRef, Phys};
use crate::machine::{PLACES, REPLICAS};
use crate::world::World;

/// What somebody sees of a run after an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// What is compared as it is.
    pub facts: Facts,
    /// What is compared modulo sealing; `None` where nothing is seen.
    pub bytes: Vec<Option<Bytes>>,
}

/// What is no page's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// What can happen next, to guests as well: that they run or fault is seen.
    pub enabled: Vec<Event>,
    /// What the core refused.
    pub refused: Option<Refused>,
    /// Whether the platform failed.
    pub faulted: bool,
    /// Whether a seal was refused as not genuine.
    pub forged: bool,
    /// The plans that were committed.
    pub committed: Vec<(PageRef, Ask, PageState)>,
    /// Of each page: what it is, its version, its frame, whether it is held.
    pub pages: Vec<(PageState, u64, Phys, bool)>,
    /// Whose each frame is.
    pub frames: Vec<Ownership>,
    /// Of each VM: whether it runs, and how many replicas are out.
    pub vms: Vec<(bool, u64)>,
    /// The management side's own table.
    pub host_table: [Option<Perm>; PLACES],
    /// Whose replica each place of the pool holds.
    pub replica_of: [Option<PageRef>; REPLICAS],
}

/// What the management side sees: facts, every place that it reaches or owns, and what it will hand
/// over. What it was ever given is in [`Alike`].
pub fn management(world: &World<'_>) -> Sight {
    let place = |at: Phys| is_seen(world, at).then(|| world.machine.at(at));
    let handed = world.config.page_refs().map(|page| Some(world.machine.handed[page.index()]));
    Sight { facts: facts(world), bytes: Phys::all().map(place).chain(handed).collect() }
}

/// Reached by table or by what a CPU remembers, or the management side's own: frames that are
/// nobody's, and the pool of replicas.
fn is_seen(world: &World<'_>, place: Phys) -> bool {
    let own = match place {
        Phys::Frame(number) if number < world.config.frames => {
            matches!(world.ownership(number), Ownership::Free | Ownership::Offered(..))
        }
        Phys::Frame(_) => false,
        Phys::Replica(_) => true,
    };
    own || world.machine.host_reaches(place)
}

fn facts(world: &World<'_>) -> Facts {
    let page =
        |page| (world.state(page), world.version(page), world.frame(page), world.is_busy(page));
    let vm = |(vm, _)| (world.vm(vm).runnable().is_ok(), world.vm(vm).replicas());
    Facts {
        enabled: world.enabled(),
        refused: world.just.refused,
        faulted: world.just.faulted,
        forged: world.machine.noted.forged,
        committed: world.just.committed.clone(),
        pages: world.config.page_refs().map(page).collect(),
        frames: (0..world.config.frames).map(|frame| world.ownership(frame)).collect(),
        vms: (0_u8..).zip(world.config.pages).map(vm).collect(),
        host_table: world.machine.host_table,
        replica_of: world.machine.replica_of,
    }
}

/// Which bytes they are, whether or not their owner has shown them.
pub fn value(plain: Plain) -> Plain {
    match plain {
        Plain::Shared(store) => Plain::Secret(store),
        Plain::Zero | Plain::Public | Plain::Secret(_) => plain,
    }
}

/// The sealed pages that were given out: each of the first run, as a [term](Bytes::term), with the
/// one that stands for it in the second.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alike(Vec<[u32; 2]>);

impl Alike {
    /// The same event made these seals in the two runs. False if they can be told apart.
    #[must_use = "runs that part are what the product looks for"]
    pub fn learn(&mut self, first: Seal, second: Seal) -> bool {
        let pair = [first, second].map(|seal| Bytes::Sealed(seal).term());
        let one_to_one = self.0.iter().all(|known| (known[0] == pair[0]) == (known[1] == pair[1]));
        if let Err(at) = self.0.binary_search(&pair) {
            self.0.insert(at, pair);
        }
        one_to_one && (first.label, first.terms) == (second.label, second.terms)
    }

    /// Whether two runs look alike.
    pub fn same(&self, first: &Sight, second: &Sight) -> bool {
        let bytes = |(first, second): (&Option<Bytes>, &Option<Bytes>)| match (first, second) {
            (Some(Bytes::Plain(first)), Some(Bytes::Plain(second))) => {
                value(*first) == value(*second)
            }
            (Some(first @ Bytes::Sealed(_)), Some(second @ Bytes::Sealed(_))) => {
                self.0.contains(&[first.term(), second.term()])
            }
            (None, None) => true,
            (Some(_) | None, Some(_) | None) => false,
        };
        first.facts == second.facts && first.bytes.iter().zip(&second.bytes).all(bytes)
    }

    /// Whether some of them differ in what is inside.
    pub fn differ_inside(&self) -> bool {
        self.0.iter().any(|pair| {
            let [first, second] = pair.map(|term| match Bytes::from_term(term) {
                Bytes::Sealed(seal) => value(seal.inner),
                Bytes::Plain(plain) => plain,
            });
            first != second
        })
    }
}

#[cfg(test)]
mod tests {
    use view_core::suite::Stream;

    use super::*;
    use crate::bytes::Label;

    fn seal(version: u8, store: u8) -> Seal {
        let label = Label { vm: 0, epoch: 1, gfn: 0, version, stream: Stream::View };
        Seal { label, terms: 1, inner: Plain::Secret(store) }
    }

    #[test]
    fn seals_of_other_bytes_stand_for_each_other() {
        let mut alike = Alike::default();
        assert!(alike.learn(seal(1, 0), seal(1, 0)) && !alike.differ_inside());
        assert!(alike.learn(seal(2, 1), seal(2, 0)) && alike.differ_inside());
        assert!(alike.learn(seal(2, 1), seal(2, 0)), "as before");
    }

    #[test]
    fn an_equal_pair_in_one_run_only_tells_them_apart() {
        let learnt = |seals: [(Seal, Seal); 3]| {
            let mut alike = Alike::default();
            seals.into_iter().all(|(first, second)| alike.learn(first, second))
        };
        // Under one version, a page that changed back is told from one that did not change again.
        let (a, b) = (seal(1, 0), seal(1, 1));
        assert!(learnt([(a, b), (b, a), (a, b)]));
        assert!(!learnt([(a, a), (b, b), (a, b)]));
        assert!(!learnt([(a, a), (b, a), (b, b)]));
    }

    #[test]
    fn what_a_seal_says_about_itself_is_told() {
        assert!(!Alike::default().learn(seal(1, 0), seal(2, 0)));
        let excluded = Seal { terms: 1 << 6, ..seal(1, 0) };
        assert!(!Alike::default().learn(seal(1, 0), excluded));
    }

    #[test]
    fn plain_bytes_are_compared_and_sealed_ones_looked_up() {
        let facts = Facts {
            enabled: Vec::new(),
            refused: None,
            faulted: false,
            forged: false,
            committed: Vec::new(),
            pages: Vec::new(),
            frames: Vec::new(),
            vms: Vec::new(),
            host_table: [None; PLACES],
            replica_of: [None; REPLICAS],
        };
        let sight = |bytes| Sight { facts: facts.clone(), bytes: vec![bytes] };
        let [shown, stored] = [Plain::Shared(0), Plain::Secret(0)].map(Bytes::Plain);
        let mut alike = Alike::default();
        assert!(alike.same(&sight(Some(shown)), &sight(Some(stored))), "the same bytes");
        assert!(!alike.same(&sight(Some(stored)), &sight(Some(Bytes::ZERO))));
        assert!(!alike.same(&sight(Some(stored)), &sight(None)));
        let [first, second] = [seal(1, 0), seal(1, 1)].map(Bytes::Sealed);
        assert!(!alike.same(&sight(Some(first)), &sight(Some(second))));
        assert!(alike.learn(seal(1, 0), seal(1, 1)));
        assert!(alike.same(&sight(Some(first)), &sight(Some(second))));
        let refused = Facts { refused: Some(Refused::Poisoned), ..facts.clone() };
        let refused = Sight { facts: refused, ..sight(None) };
        assert!(!alike.same(&refused, &sight(None)));
    }
}
