//! How much each stream's key has sealed, counted before a page is sealed under it.

use std::sync::{Mutex, PoisonError};

use view_core::key::{Advice, Spent, Wear};
use view_core::suite::Stream;

/// One count a stream.
#[derive(Debug, Default)]
pub struct StreamWear(Mutex<[(Wear, bool); 3]>);

impl StreamWear {
    /// Counts pages that are about to be sealed for a stream.
    ///
    /// # Errors
    /// [`Spent`] if its key may not seal them; nothing was counted.
    pub fn add(&self, stream: Stream, pages: u64) -> Result<(), Spent> {
        let place = match stream {
            Stream::View => 0,
            Stream::Resident => 1,
            Stream::Image => 2,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (wear, rekey) = &mut counts[place];
        let (sum, advice) = wear.add(pages)?;
        (*wear, *rekey) = (sum, advice == Advice::Rekey);
        Ok(())
    }

    /// Whether some key has sealed so much that a new epoch is due: restore a snapshot.
    pub fn is_rekey_due(&self) -> bool {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().any(|(_, rekey)| *rekey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_key_seals_no_page_and_the_others_carry_on() {
        let wear = StreamWear::default();
        wear.add(Stream::View, Wear::REKEY - 1).unwrap();
        assert!(!wear.is_rekey_due());
        wear.add(Stream::View, 1).unwrap();
        assert!(wear.is_rekey_due());
        wear.add(Stream::View, Wear::STOP - Wear::REKEY).unwrap();
        assert_eq!(wear.add(Stream::View, 1), Err(Spent));
        assert_eq!(wear.add(Stream::Image, 1), Ok(()));
    }
}
