//! Ids that are used once: what suites seal by for which a repeated version is fatal.
//!
//! Such a suite takes [`Once`] where a forgiving one takes [`PageId`]. A `Once` is neither copied
//! nor made up: it comes from the one [`Sequence`] that was made with the key, which hands out each
//! version once and no more of them than the key may seal. So a suite of this sort cannot be put
//! where versions come from a page's slot and a lost table could repeat them:
//!
//! ```compile_fail,E0271
//! # use view_core::suite::{PageCipher, PageId, aes_256_gcm::Aes256Gcm};
//! /// Seals pages as a table of versions says.
//! struct Replicas<C: PageCipher<Id = PageId>>(C);
//! fn start(cipher: Aes256Gcm) -> Replicas<Aes256Gcm> { Replicas(cipher) }
//! ```

use core::borrow::Borrow;

use super::PageId;
use crate::addr::Version;
use crate::key::{Advice, Spent, Wear};

/// A page's id with a version that no other sealing under the same key has.
///
/// ```compile_fail,E0277
/// fn copied<T: Copy>() {}
/// copied::<view_core::suite::sequence::Once>(); // it would not be once
/// ```
#[derive(Debug)]
pub struct Once(PageId);

impl Borrow<PageId> for Once {
    fn borrow(&self) -> &PageId {
        &self.0
    }
}

/// The versions of one key, each handed out once. Made with the cipher, and only there.
///
/// It lives as long as the key is used for sealing and is never saved: who restarts, restores or
/// rolls back begins a new epoch, with other keys.
#[derive(Debug)]
pub struct Sequence(Wear);

impl Sequence {
    pub(super) const fn new() -> Self {
        Self(Wear::NONE)
    }

    /// The id with the next version in place of its own, and whether a new epoch is due. The
    /// record of the page carries that version: an opener needs it.
    ///
    /// # Errors
    /// [`Spent`] after [`Wear::STOP`] pages.
    pub fn next(&mut self, id: PageId) -> Result<(Once, Advice), Spent> {
        let (wear, advice) = self.0.add(1)?;
        let version = Version::new(wear.pages()).map_err(|_| Spent)?;
        self.0 = wear;
        Ok((Once(PageId { version, ..id }), advice))
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "in a test")]
mod tests {
    use super::*;
    use crate::suite::Stream;
    use crate::{Epoch, Gfn, MaskId, PageKind, Perm};

    const ID: PageId = PageId {
        gfn: Gfn::MAX,
        version: Version::ZERO,
        epoch: Epoch(3),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream: Stream::Image,
        excluded: false,
    };

    #[test]
    fn each_version_comes_once_and_ends_with_the_key() {
        let mut sequence = Sequence::new();
        for version in 1..=1000 {
            let (once, advice) = sequence.next(ID).expect("fresh");
            assert_eq!(once.0, PageId { version: Version::new(version).expect("small"), ..ID });
            assert_eq!(advice, Advice::Fresh);
        }
        let (wear, _) = Wear::NONE.add(Wear::REKEY - 2).expect("fresh");
        let mut sequence = Sequence(wear);
        assert_eq!(sequence.next(ID).map(|(_, advice)| advice), Ok(Advice::Fresh));
        assert_eq!(sequence.next(ID).map(|(_, advice)| advice), Ok(Advice::Rekey));
        let (wear, _) = Wear::NONE.add(Wear::STOP - 1).expect("not spent");
        let mut sequence = Sequence(wear);
        assert!(sequence.next(ID).is_ok());
        assert_eq!(sequence.next(ID).map(|(_, advice)| advice), Err(Spent));
        assert_eq!(sequence.next(ID).map(|(_, advice)| advice), Err(Spent));
    }
}
