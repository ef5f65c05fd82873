//! The narrow door to whatever carries decisions out: a simulator, KVM, Xen, a bare monitor.
//!
//! Each method is named for what is true when it returns, not for how that came about. A platform
//! value is a cheap handle, one for each CPU or thread that runs batches.

use crate::addr::{Frame, Gfn, VmNumber};
use crate::perm::{MaskId, Perm};
use crate::suite::{PageId, Tag};

/// Who looks at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// The guest that owns the page.
    Owner,
    /// Everything that manages it: host VMM, dom0, dump, debugger, introspection, and every
    /// device that these can program.
    Management,
}

/// What a view is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// The page's own frame, plain.
    Plain,
    /// The page's own frame, which holds sealed bytes.
    Sealed,
    /// The sealed snapshot that the last seal into [`Place::Replica`] made.
    Replica,
    /// A copy of the page in which only the fields of a mask show.
    Masked(MaskId),
}

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The bytes of the page's frame, copied once into staging.
    Frame,
    /// Zeroes, in place of a page that checkpoints leave out.
    Zeroes,
}

/// Where sealed bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A replica of the page, from the platform's pool.
    Replica,
    /// The page's own frame.
    InPlace,
    /// Out, to whoever asked.
    Wire,
}

/// Which copies of a page are wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Copies {
    /// The page's own frame.
    Original,
    /// Its replica; the platform's pool has the room back.
    Replica,
    /// Both, as far as they exist.
    All,
}

/// The page that a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Whose page.
    pub vm: VmNumber,
    /// Which page.
    pub gfn: Gfn,
    /// The frame that backs it; meaningless for a page that has none.
    pub frame: Frame,
}

/// One page to seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealStep {
    /// Which page.
    pub target: Target,
    /// What is authenticated beside its bytes.
    pub id: PageId,
    /// What is sealed.
    pub from: Source,
    /// Where the sealed bytes go.
    pub to: Place,
}

/// One page to open in its own frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenStep {
    /// Which page.
    pub target: Target,
    /// What the core's own table says about the sealed bytes.
    pub id: PageId,
    /// The tag that the core's own table expects.
    pub tag: Tag,
}

/// What a hypervisor must be able to do. `sim` and every frontend implement exactly this.
pub trait Platform {
    /// What went wrong below. Passes through untouched.
    type Fault: Copy;

    /// On return `view` has no mapping of the page or its replica, but CPUs and devices may still
    /// act on one that they remember. Withdrawing what was never granted is fine.
    ///
    /// # Errors
    /// A fault poisons the page.
    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), Self::Fault>;

    /// On return every earlier [`withdraw`](Self::withdraw) holds on every CPU and device.
    ///
    /// # Errors
    /// A fault poisons every page of the batch.
    fn fence(&mut self) -> Result<(), Self::Fault>;

    /// On return the page's frame holds the sealed bytes that the management side handed over for
    /// it, read from there once; no view reaches them.
    ///
    /// # Errors
    /// A fault poisons the page.
    fn fetch(&mut self, page: &Target) -> Result<(), Self::Fault>;

    /// On return the sealed form of every page is where its step says, and `tags` (as long as
    /// `steps`) holds their tags. Bytes that a CPU can still change are copied once into staging
    /// first.
    ///
    /// # Errors
    /// A fault poisons every page of the list.
    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), Self::Fault>;

    /// On return `genuine` (as long as `steps`) says of every page whether its tag matched; the
    /// frames hold plain bytes where it did and zeroes where it did not.
    ///
    /// # Errors
    /// A fault poisons every page of the list.
    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Self::Fault>;

    /// On return these copies of the page hold nothing but zeroes.
    ///
    /// # Errors
    /// A fault poisons the page.
    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), Self::Fault>;

    /// On return `view` may reach `what` of the page with `perm`. An owner keeps its mapping while
    /// the management side is granted one. A grant with less than an earlier one takes nothing
    /// back: that is what [`withdraw`](Self::withdraw) is for.
    ///
    /// # Errors
    /// A fault poisons the page.
    fn grant(
        &mut self,
        page: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), Self::Fault>;
}
