//! How candidates are timed: side by side, in random order, each on memory of its own.
//!
//! What a machine gives changes from second to second. So every candidate has a turn in every
//! round, what is compared is one round's time with another's of the same round, and the median of
//! those ratios counts. Clocks are the thread's own CPU time, which does not run while a neighbour
//! has the CPU; only the bench of two cores goes by the wall.

mod alone;
mod area;
mod proof;
mod rounds;
mod two_cores;

pub use alone::{Field, L2_PAGES, LIST, LISTS, TURN, by_batch, cold, in_lists, l2, single_page};
pub use area::{Area, Rotation};
pub use proof::prove;
pub use rounds::{Dice, Rounds, median, thread_time};
pub use two_cores::{Scaling, two_cores};
