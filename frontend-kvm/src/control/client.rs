//! The management side's end of the control socket. It trusts nothing that comes back: a sealed
//! page is opaque bytes, a length is bounded, an unknown state is a poisoned one.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use view_core::{Page, PageState, VmId};
use zerocopy::{FromBytes, IntoBytes};

use super::viewing::ViewMapping;
use super::wire::{About, Ask, Frame, PAGES_MAX, Shown, WireError, state_of};
use crate::socket::{receive_fd, send_fd};
use crate::sys::Uffd;

/// A page as management sees it.
#[derive(Clone, Debug)]
pub struct SeenPage {
    /// Which page.
    pub gfn: u64,
    /// What it is.
    pub state: PageState,
    /// Version and tag, if the bytes are sealed.
    pub sealed: Option<(u64, [u8; 16])>,
    /// The bytes.
    pub bytes: Box<Page>,
}

/// What VM is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its name for life.
    pub vm: VmId,
    /// How often it was restored.
    pub epoch: u64,
    /// How many pages the guest has.
    pub pages: u64,
    /// Doorbells that were refused.
    pub refused: u64,
    /// Whether its vCPUs may run.
    pub runnable: bool,
    /// Whether a key has sealed so much that a new epoch is due.
    pub rekey_due: bool,
}

/// What came with a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// How long the guest stood still.
    pub stall: Duration,
    /// Bytes of the image.
    pub bytes: u64,
    /// Pages in it.
    pub pages: u64,
}

/// A conversation with a trusted process.
#[derive(Debug)]
pub struct Client(UnixStream);

impl Client {
    /// Connects to a control socket.
    ///
    /// # Errors
    /// Nobody listens there, or we may not.
    pub fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self)
    }

    /// Talks over a socket that is connected already.
    pub const fn over(socket: UnixStream) -> Self {
        Self(socket)
    }

    /// What VM this is.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn about(&mut self) -> Result<Seen, WireError> {
        let (_, payload) = self.ask(Ask::About, 0, 0, &[])?;
        let about = About::read_from_bytes(&payload).map_err(|_| WireError::NotAFrame)?;
        Ok(Seen {
            vm: VmId(about.vm),
            epoch: about.epoch.get(),
            pages: about.pages.get(),
            refused: about.refused.get(),
            runnable: about.runnable.get() == 1,
            rekey_due: about.rekey_due.get() == 1,
        })
    }

    /// The state of every page of the guest, in order.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn states(&mut self) -> Result<Vec<PageState>, WireError> {
        let pages = self.about()?.pages;
        let (_, payload) = self.ask(Ask::States, 0, pages, &[])?;
        if payload.len() as u64 != pages {
            return Err(WireError::NotAFrame);
        }
        Ok(payload.into_iter().map(|code| state_of(code, 0, 0)).collect())
    }

    /// Up to [`PAGES_MAX`] pages as management sees them.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(&mut self, first: u64, count: u64) -> Result<Vec<SeenPage>, WireError> {
        let count = count.min(PAGES_MAX);
        let (_, payload) = self.ask(Ask::Read, first, count, &[])?;
        let mut rest = payload.as_slice();
        let mut pages = Vec::new();
        while !rest.is_empty() {
            let not_a_frame = |_| WireError::NotAFrame;
            let (shown, behind) =
                Shown::read_from_prefix(rest).map_err(|_| WireError::NotAFrame)?;
            let (bytes, behind) = behind
                .split_first_chunk::<{ view_core::PAGE_SIZE }>()
                .ok_or(WireError::NotAFrame)?;
            let page = Page::read_from_bytes(bytes).map_err(|e| not_a_frame(e.to_string()))?;
            pages.push(SeenPage {
                gfn: shown.gfn.get(),
                state: state_of(shown.state, shown.kind, shown.mask),
                sealed: (shown.sealed == 1).then_some((shown.version.get(), shown.tag)),
                bytes: Box::new(page),
            });
            rest = behind;
        }
        let asked = pages.len() as u64 == count
            && pages.iter().map(|page| page.gfn).eq(first..first.saturating_add(count));
        if asked { Ok(pages) } else { Err(WireError::NotAFrame) }
    }

    /// Stores bytes into a page that the guest opened for writing.
    ///
    /// # Errors
    /// [`WireError`]; refused, nothing was stored.
    pub fn write(&mut self, page: u64, offset: u64, bytes: &[u8]) -> Result<(), WireError> {
        self.ask(Ask::Write, page, offset, bytes).map(|_| ())
    }

    /// Drops the mapping of a page, so that the next look is a fresh one.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn unmap(&mut self, page: u64) -> Result<(), WireError> {
        self.ask(Ask::Unmap, page, 0, &[]).map(|_| ())
    }

    /// Ends the VM and has every page wiped.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn destroy(&mut self) -> Result<(), WireError> {
        self.ask(Ask::Destroy, 0, 0, &[]).map(|_| ())
    }

    /// Has a sealed image written to `sink`. `progress` hears of every piece.
    ///
    /// # Errors
    /// [`WireError`]; what was written is not a whole image.
    pub fn snapshot(
        &mut self,
        sink: &mut impl Write,
        mut progress: impl FnMut(u64),
    ) -> Result<Taken, WireError> {
        Frame::new(Ask::Snapshot, 0, 0).send(&mut self.0, &[])?;
        let mut bytes = 0;
        loop {
            let (frame, payload) = self.answer()?;
            if payload.is_empty() {
                let stall = Duration::from_micros(frame.a.get());
                return Ok(Taken { stall, bytes, pages: frame.b.get() });
            }
            bytes += payload.len() as u64;
            progress(bytes);
            sink.write_all(&payload).map_err(WireError::Sink)?;
        }
    }

    /// Maps the whole view, served page by page by the other side as it is touched.
    ///
    /// # Errors
    /// [`WireError`], the system's among them.
    pub fn view(mut self) -> Result<View, WireError> {
        Frame::new(Ask::View, 0, 0).send(&mut self.0, &[])?;
        let mut bytes = [0; size_of::<Frame>()];
        let system = |e: crate::SysError| io::Error::from_raw_os_error(e.errno);
        let (_, file) = receive_fd(&self.0, &mut bytes).map_err(system)?;
        let (offer, _) = Frame::receive(&mut bytes.as_slice())?.ok_or(WireError::NotAFrame)?;
        let file = std::fs::File::from(file.ok_or(WireError::NotAFrame)?);
        let pages = usize::try_from(offer.b.get()).map_err(|_| WireError::NotAFrame)?;
        let mapping = ViewMapping::new(&file, pages).map_err(system)?;
        let uffd = Uffd::open(Uffd::FEATURE_MISSING_SHMEM).map_err(system)?;
        mapping.report_to(&uffd).map_err(system)?;
        let mine = Frame::new(Ask::View, mapping.address(), 0);
        send_fd(&self.0, mine.as_bytes(), uffd.file()).map_err(system)?;
        self.answer()?;
        Ok(View { mapping, pages, _uffd: uffd, _socket: self.0 })
    }

    fn ask(
        &mut self,
        ask: Ask,
        a: u64,
        b: u64,
        payload: &[u8],
    ) -> Result<(Frame, Vec<u8>), WireError> {
        Frame::new(ask, a, b).send(&mut self.0, payload)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(Frame, Vec<u8>), WireError> {
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up");
        let (frame, payload) = Frame::receive(&mut self.0)?.ok_or_else(gone)?;
        if frame.status.get() != 0 {
            // They are shown on a terminal, which must not be told what to do.
            let words = String::from_utf8_lossy(&payload).replace(char::is_control, " ");
            return Err(WireError::Refused(words));
        }
        Ok((frame, payload))
    }
}

/// A mapping of the management side's view. Dropped, it is gone.
#[derive(Debug)]
pub struct View {
    mapping: ViewMapping,
    /// How many pages there are.
    pub pages: usize,
    _uffd: Uffd,
    _socket: UnixStream,
}

impl View {
    /// The mapping itself: a load from it waits until the page is served.
    pub const fn mapping(&self) -> &ViewMapping {
        &self.mapping
    }
}
