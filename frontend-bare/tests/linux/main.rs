//! Linux beneath the monitor: what a kernel's file must say, where all goes, and what is there in
//! the end, byte by byte where the protocol says.

mod place;
mod start;

use frontend_bare::linux::{Header, NotLinux};
use frontend_bare::start_info::Range;

const MIB: u64 = 1 << 20;

/// A field of a kernel's header: where it is, and its bytes.
type Patch<'a> = (usize, &'a [u8]);

/// The file of a kernel of version 2.15: three sectors of setup, and what runs.
fn kernel(size: usize, patches: &[Patch<'_>]) -> Vec<u8> {
    let mut file: Vec<_> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
    let header: &[Patch<'_>] = &[
        (0x1f1, &[2]),
        (0x1f4, &(((size - 0x600) / 16) as u32).to_le_bytes()),
        (0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]),
        (0x202, b"HdrS\x0f\x02"),
        (0x211, &[1]),
        (0x22c, &0x7fff_ffff_u32.to_le_bytes()),
        (0x230, &0x20_0000_u32.to_le_bytes()),
        (0x234, &[1]),
        (0x236, &[0x7f, 0]),
        (0x238, &2047_u32.to_le_bytes()),
        (0x258, &0x100_0000_u64.to_le_bytes()),
        (0x260, &0x30_0000_u32.to_le_bytes()),
    ];
    for (at, bytes) in header.iter().chain(patches) {
        file[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

fn header(patches: &[Patch<'_>]) -> Result<Header, NotLinux> {
    Header::of(&kernel(0x4000, patches))
}

#[test]
fn a_kernel_says_what_it_wants() {
    let header = header(&[]).unwrap();
    assert_eq!(header.version(), 0x20f);
    assert_eq!(header.setup_size(), 0x600);
    assert_eq!(header.preferred(), 16 * MIB);
    assert_eq!(header.alignment(), 2 * MIB);
    assert_eq!(header.init_size(), 3 * MIB);
    assert_eq!(header.initrd_end_max(), 0x8000_0000);
    assert_eq!(header.command_line_max(), 2047);
    assert!(header.is_relocatable());
}

#[test]
fn what_is_no_kernel_is_refused() {
    let refused = |patch: Patch<'_>| header(&[patch]).unwrap_err();
    assert_eq!(refused((0x1fe, &[0])), NotLinux::Magic);
    assert_eq!(refused((0x202, b"HdrT")), NotLinux::Magic);
    assert_eq!(refused((0x206, &[0x0b, 2])), NotLinux::Version(0x20b));
    assert_eq!(refused((0x211, &[0])), NotLinux::Low);
    assert_eq!(refused((0x236, &[0x7e, 0])), NotLinux::Not64Bit);
    assert_eq!(refused((0x230, &[0; 4])), NotLinux::Alignment(0));
    assert_eq!(refused((0x230, &[3, 0, 0, 0])), NotLinux::Alignment(3));
    assert_eq!(refused((0x201, &[0x65])), NotLinux::HeaderEnd(0x65), "before INIT_SIZE's end");
    assert_eq!(refused((0x201, &[0x8f])), NotLinux::HeaderEnd(0x8f), "over the disks");
    assert!(header(&[(0x201, &[0x66])]).is_ok() && header(&[(0x201, &[0x8e])]).is_ok());
    assert!(header(&[(0x206, &[0x0c, 2])]).is_ok());
    let file = kernel(0x4000, &[]);
    assert_eq!(Header::of(&file[..Header::FILE_BYTES - 1]).unwrap_err(), NotLinux::Short);
    assert!(Header::of(&file[..Header::FILE_BYTES]).is_ok());
    // Zero sectors are four.
    assert_eq!(header(&[(0x1f1, &[0])]).unwrap().setup_size(), 5 * 512);
}

/// What firmware says of a machine with 32 MiB.
fn ranges() -> Vec<Range> {
    vec![
        Range::new(0, 0x9_fc00, 1),
        Range::new(0x9_fc00, 0x400, 2),
        Range::new(0xf_0000, 0x1_0000, 2),
        Range::new(MIB, 31 * MIB - 0x2_0000, 1),
        Range::new(32 * MIB - 0x2_0000, 0x2_0000, 3),
        Range::new(0xfffc_0000, 0x4_0000, 2),
    ]
}
