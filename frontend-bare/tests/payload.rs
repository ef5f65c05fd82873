//! The container of what the monitor starts: what is written is read, and nothing else is.

use frontend_bare::payload::{COMMAND_LINE_MAX, Header, NotAPayload, PAGE, Payload, parse};
use proptest::prelude::*;
use zerocopy::IntoBytes;

/// Where the numbers of a header are: offset and length of each part.
const KERNEL: usize = 8;
const INITRD: usize = 24;
const COMMAND_LINE: usize = 40;

/// A container with these parts.
fn written(parts: [&[u8]; 3]) -> Vec<u8> {
    let [kernel, initrd, line] = parts.map(|part| part.len() as u64);
    let header = Header::new(kernel, initrd, line).unwrap();
    let mut bytes = header.as_bytes().to_vec();
    let places = [header.kernel(), header.initrd(), header.command_line()];
    for (place, part) in places.iter().zip(parts) {
        bytes.resize(usize::try_from(place.offset()).unwrap(), 0);
        bytes.extend_from_slice(part);
    }
    assert_eq!(bytes.len() as u64, header.size());
    bytes
}

/// The same container with another number at `at` of its header.
fn changed(bytes: &[u8], at: usize, number: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[test]
fn what_is_written_is_read() {
    let (kernel, initrd) = (vec![1; 10_000], vec![2; 4096]);
    for line in [&b"quiet"[..], b""] {
        let bytes = written([&kernel, &initrd, line]);
        let expected = Payload { kernel: &kernel, initrd: &initrd, command_line: line };
        assert_eq!(parse(&bytes), Ok(expected));
    }
    assert_eq!(parse(&written([&kernel, b"", b"x"])).unwrap().initrd, b"");
}

#[test]
fn each_part_begins_at_a_page_behind_the_one_before_it() {
    let header = Header::new(1, 4097, 5).unwrap();
    let offsets = [header.kernel(), header.initrd(), header.command_line()].map(|p| p.offset());
    assert_eq!(offsets, [PAGE, 2 * PAGE, 4 * PAGE]);
    assert_eq!(header.size(), 4 * PAGE + 5);
}

#[test]
fn what_does_not_add_up_is_refused() {
    let bytes = written([&[1; 5000], &[2; 10], b"quiet"]);
    let refused = |at, number| parse(&changed(&bytes, at, number)).unwrap_err();
    assert_eq!(parse(&bytes[..4095]), Err(NotAPayload::Short(4095)));
    assert_eq!(refused(0, 0), NotAPayload::Magic);
    assert_eq!(refused(KERNEL, PAGE + 1), NotAPayload::Unaligned("kernel"));
    assert_eq!(refused(KERNEL, 0), NotAPayload::Overlap("kernel"), "in the header");
    assert_eq!(refused(KERNEL + 8, 2 * PAGE + 1), NotAPayload::Overlap("initrd"));
    assert_eq!(refused(INITRD, PAGE), NotAPayload::Overlap("initrd"));
    assert_eq!(refused(INITRD, u64::MAX - 4095), NotAPayload::Outside("initrd"));
    assert_eq!(refused(INITRD + 8, u64::MAX), NotAPayload::Outside("initrd"));
    assert_eq!(refused(COMMAND_LINE + 8, 6), NotAPayload::Outside("command line"));
    assert_eq!(refused(KERNEL + 8, 0), NotAPayload::NoKernel);
    assert_eq!(parse(&bytes[..bytes.len() - 1]), Err(NotAPayload::Outside("command line")));
}

#[test]
fn a_file_smaller_than_a_header_has_no_payload() {
    let header = Header::new(1, 0, 0).unwrap();
    assert!(header.clone().checked(header.size()).is_ok());
    assert_eq!(header.checked(PAGE - 1).unwrap_err(), NotAPayload::Short(PAGE - 1));
}

#[test]
fn nobody_writes_what_nobody_would_read() {
    assert_eq!(Header::new(0, 1, 1).unwrap_err(), NotAPayload::NoKernel);
    let long = COMMAND_LINE_MAX + 1;
    assert!(Header::new(1, 1, COMMAND_LINE_MAX).is_ok());
    assert_eq!(Header::new(1, 1, long).unwrap_err(), NotAPayload::CommandLine(long));
    assert_eq!(Header::new(u64::MAX, 1, 1).unwrap_err(), NotAPayload::Outside("kernel"));
    let most = u64::MAX - PAGE;
    assert_eq!(Header::new(most, 1, 1).unwrap_err(), NotAPayload::Outside("initrd"));
}

proptest! {
    /// Whatever a header says, what is read lies in the file, behind the header, and in order.
    #[test]
    fn no_part_of_any_container_leaves_the_file(
        numbers in prop::array::uniform6(prop_oneof![
            0..8_u64, (0..6_u64).prop_map(|page| page * PAGE), any::<u64>(),
        ]),
    ) {
        let mut bytes = written([&[1; 5000], &[2; 10], b"quiet"]);
        for (at, number) in (8..).step_by(8).zip(numbers) {
            bytes = changed(&bytes, at, number);
        }
        if let Ok(Payload { kernel, initrd, command_line }) = parse(&bytes) {
            let mut end = bytes[4096..].as_ptr() as usize;
            for part in [kernel, initrd, command_line] {
                prop_assert!(part.as_ptr() as usize >= end);
                end = part.as_ptr() as usize + part.len();
            }
            prop_assert!(end <= bytes.as_ptr() as usize + bytes.len());
        }
    }
}
