//! What a manager has: the view file, mapped for reading once and for all, and the sealed pages
//! that it was ever given.

use std::fs::File;
use std::os::unix::fs::FileExt;

use frontend_kvm::control::viewing::ViewMapping;
use frontend_kvm::sys::Uffd;
use frontend_kvm::trusted::Views;
use view_core::{Gfn, Page};

/// A touch of a page that is not there fails, instead of waiting until somebody shows it.
const FEATURE_SIGBUS: u64 = 1 << 7;

pub(crate) struct Manager {
    mapping: ViewMapping,
    /// Kept open: closed, it would let touches fill holes of the view file with zeroes.
    _uffd: Uffd,
    /// Our own memory, as the kernel reads it: where we would be sent a signal, it says no.
    own: File,
}

impl Manager {
    pub(crate) fn new(views: &Views) -> Self {
        let mapping = ViewMapping::new(views.reader(), views.memory().pages()).unwrap();
        let uffd = Uffd::open(Uffd::FEATURE_MISSING_SHMEM | FEATURE_SIGBUS).unwrap();
        mapping.report_to(&uffd).unwrap();
        Self { mapping, _uffd: uffd, own: File::open("/proc/self/mem").unwrap() }
    }

    /// What the mapping shows: what it has mapped already, or what the view file has by now.
    pub(crate) fn look(&self, gfn: Gfn) -> Option<Box<Page>> {
        let (mut byte, start) = ([0], self.mapping.address() + gfn.number() * 4096);
        self.own.read_exact_at(&mut byte, start).ok()?;
        let mut page = Box::new(Page::zeroed());
        // Nothing takes it away in between: who could is this thread.
        self.mapping.read(usize::try_from(gfn.number()).unwrap(), &mut page)?;
        Some(page)
    }
}
