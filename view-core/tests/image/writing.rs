//! What a writer refuses, and that it goes on as it was.

use super::sealed::{Terms, epoch_key, gfn, header, mixed, page_id, private, root_key};
use view_core::image::{HEADER_SIZE, Header, ImageError, ImageWriter, Record};
use view_core::suite::{PageId, Stream, SuiteId};
use view_core::{Epoch, MaskId, PageKind, PageState, Perm, Receipt, Version};

fn begin(header: &Header) -> Result<ImageWriter, ImageError> {
    ImageWriter::new(&epoch_key(&root_key(), header), header, &mut [0; HEADER_SIZE])
}

/// A page that was sealed for an image on these terms. No writer can tell from a tag.
pub(crate) fn receipt(page: u64, terms: Terms) -> Receipt {
    let id = page_id(header(0, b"").epoch, page, terms);
    let (state, sealed) = (terms.state, Some((id, [page as u8; 16])));
    Receipt { gfn: gfn(page), state, sealed_as: state, sealed }
}

fn altered(page: u64, terms: Terms, alter: impl Fn(&mut PageId, &mut PageState)) -> Receipt {
    let mut receipt = receipt(page, terms);
    let (mut id, tag) = receipt.sealed.expect("sealed");
    alter(&mut id, &mut receipt.sealed_as);
    receipt.sealed = Some((id, tag));
    receipt
}

#[test]
fn pages_are_recorded_in_order_and_once() {
    let mut writer = begin(&header(2, b"")).expect("small");
    let record = |writer: &mut ImageWriter, page| {
        writer.record(&receipt(page, private(page))).map(|_| ()).err()
    };
    assert_eq!(record(&mut writer, 1), Some(ImageError::OutOfOrder(gfn(1))));
    assert_eq!(record(&mut writer, 0), None);
    assert_eq!(record(&mut writer, 0), Some(ImageError::OutOfOrder(gfn(0))));
    assert_eq!(record(&mut writer, 1), None);
    assert_eq!(record(&mut writer, 2), Some(ImageError::OutOfOrder(gfn(2))));
    assert!(writer.finish(&mut []).is_ok());
}

#[test]
fn a_page_sealed_for_something_else_is_not_recorded() {
    let mut writer = begin(&header(2, b"")).expect("small");
    let strangers = [
        Receipt { sealed: None, ..receipt(0, private(0)) },
        altered(0, private(0), |id, _| id.gfn = gfn(1)),
        altered(0, private(0), |id, _| id.epoch = Epoch(id.epoch.0 ^ 1 << 63)),
        altered(0, private(0), |id, _| id.stream = Stream::View),
        altered(0, private(0), |id, _| id.version = Version::ZERO),
        altered(0, private(0), |id, _| id.kind = PageKind::MAILBOX),
        altered(0, private(0), |id, _| id.perm = Perm::ReadWrite),
        altered(0, private(0), |_, state| *state = PageState::Sealed),
        altered(0, private(0), |_, state| *state = PageState::Poisoned),
        altered(0, mixed(1), |_, state| *state = PageState::Private),
        altered(0, mixed(1), |id, _| id.mask = MaskId::new(1).expect("in range")),
        altered(0, mixed(3), |id, _| id.kind = PageKind::MEMORY),
        altered(0, mixed(3), |id, _| id.perm = Perm::ReadWrite),
    ];
    for stranger in strangers {
        let refused = writer.record(&stranger).map(|_| ());
        assert_eq!(refused, Err(ImageError::NotForThisImage(gfn(0))), "{stranger:?}");
    }
    let replica = altered(0, private(0), |_, state| *state = PageState::Replica);
    let (replica, own) = (
        writer.record(&replica).expect("plain for its owner"),
        begin(&header(1, b"")).expect("small").record(&receipt(0, private(0))).expect("sealed"),
    );
    assert_eq!(Record::bytes(&[replica]), Record::bytes(&[own]));
}

#[test]
fn an_image_does_not_end_before_all_pages_are_recorded() {
    let mut writer = begin(&header(2, b"vcpu")).expect("small");
    writer.record(&receipt(0, private(0))).expect("in order");
    let mut state = [7; 4096];
    let refused = writer.finish(&mut state);
    assert_eq!(refused, Err(ImageError::Unfinished { recorded: 1, pages: 2 }));
    assert_eq!(state, [7; 4096], "as it was");
}

#[test]
fn the_state_has_the_length_that_the_header_says() {
    for length in [0, 4, 4095, 4097, 8192] {
        let mut state = vec![7; length];
        let refused = begin(&header(0, b"vcpu")).expect("small").finish(&mut state);
        let found = length as u64;
        assert_eq!(refused, Err(ImageError::WrongBuffer { expected: 4096, found }));
    }
}

#[test]
fn headers_past_the_limits_are_refused() {
    let pages = (1 << 40) + 1;
    let refused = begin(&header(pages, b"")).err();
    assert_eq!(refused, Some(ImageError::TooManyPages(pages)));
    let state_len = (1 << 32) + 1;
    let refused = begin(&Header { state_len, ..header(0, b"") }).err();
    assert_eq!(refused, Some(ImageError::StateTooLong(state_len)));
    let refused = begin(&Header { suite: SuiteId(2), ..header(0, b"") }).err();
    assert_eq!(refused, Some(ImageError::UnknownSuite(2)));
}

#[test]
fn a_writer_fits_in_three_kibibytes_however_many_pages_there_are() {
    assert!(size_of::<ImageWriter>() <= 3072, "{}", size_of::<ImageWriter>());
}
