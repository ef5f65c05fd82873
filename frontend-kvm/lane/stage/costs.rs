//! What a guest's stops cost here. Whoever boots this counts instructions, or has a clock.

use crate::Result;
use crate::guests::{DOOR, Running};
use crate::secrets::mode;

/// One guest says what it costs to stop and to touch pages, before its VMM reads all of them and
/// afterwards.
pub(crate) fn play() -> Result<()> {
    std::fs::create_dir_all(DOOR)?;
    let mut guest = Running::start("costs", &[0, mode::COSTS], false)?;
    guest.expect("settled")?;
    for order in ["pause", "dump", "resume", "ring"] {
        guest.order(order)?;
    }
    guest.end()
}
