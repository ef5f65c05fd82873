//! Sealed images where files are: written in one stream, read wherever a part of them is.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use view_core::image::{
    GenuineManifest, GenuineRecord, HEADER_SIZE, Header, ImageError, ImageReader, ImageRoot,
    ImageWriter, Record, TRAILER_SIZE,
};
use view_core::key::{EpochKey, RootKey};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, OpenJob, PageCipher};
use view_core::{PAGE_SIZE, Page, Receipt};
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

/// Pages that are read and opened together.
const RUN: usize = 64;

/// Why an image can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ImageFileError {
    /// The file can't be read or written.
    #[error("the image can't be read or written: {0}")]
    Io(#[from] io::Error),
    /// The image is not what it should be.
    #[error("{0}")]
    Image(ImageError),
    /// More pages than this process can count.
    #[error("{0} pages are too many for this machine")]
    TooLarge(u64),
}

impl From<ImageError> for ImageFileError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// Sealed pages in the order of gfn, at most as many as the caller likes at once.
pub type SealedPages = Vec<(Receipt, Option<Box<Page>>)>;

/// Writes a whole image in one stream. `next` hands over sealed pages from a gfn on.
///
/// # Errors
/// The sink's, the format's, or what `next` met; what was written is no image.
pub fn write<E: From<ImageFileError>>(
    sink: &mut impl Write,
    key: &EpochKey,
    header: &Header,
    state: &[u8],
    mut next: impl FnMut(usize) -> Result<SealedPages, E>,
) -> Result<ImageRoot, E> {
    let io = |error: io::Error| E::from(error.into());
    let format = |error: ImageError| E::from(error.into());
    let mut block = [0; HEADER_SIZE];
    let mut writer = ImageWriter::new(key, header, &mut block).map_err(format)?;
    sink.write_all(&block).map_err(io)?;
    let mut records = Vec::new();
    let mut body = Vec::new();
    while (records.len() as u64) < header.pages {
        body.clear();
        for (receipt, page) in next(records.len())? {
            records.push(writer.record(&receipt).map_err(format)?);
            body.extend_from_slice(page.as_ref().map_or(&[], |page| page.bytes()));
        }
        sink.write_all(&body).map_err(io)?;
    }
    let geometry = *writer.geometry();
    let padded = geometry.state().end - geometry.state().start;
    let mut sealed = Zeroizing::new(vec![0; usize::try_from(padded).unwrap_or_default()]);
    for (to, from) in sealed.iter_mut().zip(state) {
        *to = *from;
    }
    let (trailer, root) = writer.finish(&mut sealed).map_err(format)?;
    let parts = [&*sealed, Record::bytes(&records), &trailer];
    parts.into_iter().try_for_each(|part| sink.write_all(part)).map_err(io)?;
    sink.flush().map_err(io)?;
    Ok(root)
}

/// An image whose header is genuine, and the file that it is in.
#[derive(Debug)]
pub struct ImageFile<'f> {
    file: &'f File,
    reader: ImageReader,
    records: Vec<Record>,
    trailer: [u8; TRAILER_SIZE],
}

impl<'f> ImageFile<'f> {
    /// Checks the header under the owner's key, and the file's length.
    ///
    /// # Errors
    /// [`ImageFileError`]; nothing was opened.
    pub fn open(root: &RootKey, file: &'f File) -> Result<Self, ImageFileError> {
        let length = file.metadata()?.len();
        let mut block = vec![0; HEADER_SIZE.min(usize::try_from(length).unwrap_or(HEADER_SIZE))];
        file.read_exact_at(&mut block, 0)?;
        let reader = ImageReader::open(root, &block, Some(length))?;
        let geometry = reader.geometry();
        let pages = usize::try_from(geometry.pages());
        let pages = pages.map_err(|_| ImageFileError::TooLarge(geometry.pages()))?;
        let mut records = vec![Record::default(); pages];
        file.read_exact_at(Record::bytes_mut(&mut records), geometry.records().start)?;
        let mut trailer = [0; TRAILER_SIZE];
        file.read_exact_at(&mut trailer, geometry.trailer().start)?;
        Ok(Self { file, reader, records, trailer })
    }

    /// What the genuine header says.
    pub const fn header(&self) -> &Header {
        self.reader.header()
    }

    /// How many pages it has.
    pub const fn pages(&self) -> usize {
        self.records.len()
    }

    /// Checks trailer and records, and that it is the pinned image if one is.
    ///
    /// # Errors
    /// [`ImageFileError`]; nothing was opened.
    pub fn verify(&self, pinned: Option<ImageRoot>) -> Result<GenuineManifest<'_>, ImageFileError> {
        Ok(self.reader.verify(&self.records, &self.trailer, pinned)?)
    }

    /// Opens the state of CPUs and devices.
    ///
    /// # Errors
    /// [`ImageFileError`]; nothing was opened.
    pub fn state(
        &self,
        manifest: &GenuineManifest<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, ImageFileError> {
        let range = self.reader.geometry().state();
        let length = usize::try_from(range.end - range.start).unwrap_or_default();
        let mut state = Zeroizing::new(vec![0; length]);
        self.file.read_exact_at(&mut state, range.start)?;
        let opened = manifest.open_state(&mut state)?.len();
        state.truncate(opened);
        Ok(state)
    }

    /// Opens every body, in order, and shows each page to `each`.
    ///
    /// # Errors
    /// The first page that is not genuine, or what `each` met.
    pub fn bodies<E: From<ImageFileError>>(
        &self,
        manifest: &GenuineManifest<'_>,
        mut each: impl FnMut(&GenuineRecord, &Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let cipher = SivCmac512::new(&self.reader.page_key());
        let records: Vec<GenuineRecord> = manifest.records().collect();
        let mut at = self.reader.geometry().bodies().start;
        let run = RUN.min(records.len());
        let mut sealed = vec![Page::zeroed(); run];
        let mut plain = Zeroizing::new(vec![Page::zeroed(); run]);
        for some in records.chunks(RUN) {
            let Some(sealed) = sealed.get_mut(..some.len()) else { break };
            let read = self.file.read_exact_at(sealed.as_mut_bytes(), at);
            read.map_err(|error| E::from(error.into()))?;
            at += (some.len() * PAGE_SIZE) as u64;
            let job = |((record, sealed), plain): ((&GenuineRecord, _), _)| {
                let (id, tag) = (record.page_id(), record.tag());
                OpenJob::new(id, sealed, tag, plain)
            };
            let staged = some.iter().zip(&*sealed).zip(plain.iter_mut());
            let mut jobs: heapless::Vec<OpenJob<'_>, RUN> = staged.map(job).collect();
            // Hot: `each` reads them next.
            cipher.open(&mut jobs, Landing::Hot);
            for (job, record) in jobs.iter().zip(some) {
                if !job.genuine() {
                    return Err(E::from(ImageError::PageForged(record.gfn()).into()));
                }
                each(record, job.plain())?;
            }
        }
        Ok(())
    }
}
