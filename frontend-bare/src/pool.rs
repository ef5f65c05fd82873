//! Frames that the monitor keeps for itself: for tables and replicas. How many there are is fixed
//! when it is built; when none is left, what would need one is refused.

use view_core::Frame;

/// Frames that nobody uses, at most `N`.
#[derive(Debug)]
pub struct Pool<const N: usize> {
    free: heapless::Vec<Frame, N>,
}

/// No frame is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolEmpty;

impl<const N: usize> Pool<N> {
    /// A pool of these frames; those beyond `N` are left out. Nobody else may use them.
    pub fn new(frames: impl IntoIterator<Item = Frame>) -> Self {
        Self { free: frames.into_iter().take(N).collect() }
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.free.len()
    }

    /// Takes one. It holds whatever it held: who needs zeroes wipes it.
    ///
    /// # Errors
    /// [`PoolEmpty`].
    pub fn take(&mut self) -> Result<Frame, PoolEmpty> {
        self.free.pop().ok_or(PoolEmpty)
    }

    /// Gives one back that was taken from here. One more than there is room for is lost, not kept.
    pub fn give_back(&mut self, frame: Frame) {
        let _ = self.free.push(frame);
    }
}
