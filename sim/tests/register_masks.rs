//! spec/register-masks.md says bit by bit what the core's table of registers says.

use std::collections::BTreeSet;

use sim::study::registers::names::stops;
use view_core::registers::{Registers, masks};

#[test]
fn register_masks_md_has_the_masks_of_every_exit() {
    for stop in stops() {
        let masks = masks(stop.exit);
        for (cell, mask) in [(1, &masks.shown), (2, &masks.result)] {
            let written = stop.cell(cell);
            let words = written.words().iter().zip(mask.words());
            for ((written, mask), name) in words.zip(Registers::NAMES) {
                assert_eq!(written, mask, "{name} at {:?}, cell {cell} of {}", stop.exit, stop.row);
            }
        }
    }
}

#[test]
fn register_masks_md_has_a_row_for_every_exit_and_no_other() {
    let rows = spec::rows(spec::REGISTER_MASKS).filter(|row| row[0] != "exit");
    let written: Vec<&str> =
        rows.map(|row| row[0]).filter(|first| !first.starts_with('-')).collect();
    let rows: BTreeSet<&str> = stops().iter().map(|stop| stop.row).collect();
    assert_eq!(written.iter().copied().collect::<BTreeSet<_>>(), rows);
    assert_eq!(written.len(), rows.len(), "a row is written twice");
}
