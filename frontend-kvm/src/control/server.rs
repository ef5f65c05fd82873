//! The trusted process's end of the control socket: one thread a connection, each wish through the
//! gate.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use view_core::{Gfn, Request};
use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{U32, U64};

use super::viewing::{self, ForeignUffd};
use super::wire::{About, Ask, Frame, PAGES_MAX, Shown, WireError, state_code};
use crate::SysError;
use crate::socket::{peer, receive_fd, send_fd};
use crate::trusted::{Denied, Look, TrustedVm};

/// Conversations at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a manager may keep us waiting in the middle of a frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers management until it is told to stop.
#[derive(Debug)]
pub struct Server {
    vm: Arc<TrustedVm>,
    /// Users who may talk to us.
    allowed: Vec<u32>,
    over: AtomicBool,
    connections: AtomicUsize,
}

impl Server {
    /// A server that answers processes of these users, and keeps the VM's deadlines.
    ///
    /// # Errors
    /// There is no thread left.
    pub fn new(vm: Arc<TrustedVm>, allowed: Vec<u32>) -> io::Result<Arc<Self>> {
        let (over, connections) = (AtomicBool::new(false), AtomicUsize::new(0));
        let this = Arc::new(Self { vm, allowed, over, connections });
        let watched = Arc::downgrade(&this);
        let clock = std::thread::Builder::new().name("pageveil-clock".into());
        clock.spawn(move || keep_time(&watched))?;
        Ok(this)
    }

    /// Accepts connections until [`Server::stop`].
    ///
    /// # Errors
    /// The socket can't be listened at.
    pub fn listen(self: &Arc<Self>, listener: &UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        while !self.is_over() {
            // Nobody there, or no room for one more just now: who manages a guest does not end it
            // by coming too often.
            match listener.accept() {
                Ok((socket, _)) => self.welcome(socket),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Ok(())
    }

    /// Ends [`Server::listen`] and every conversation.
    pub fn stop(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether the server was stopped, by us or by a manager that ended the VM.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// One conversation on a thread of its own; for a listener, and for a socket pair.
    pub fn welcome(self: &Arc<Self>, socket: UnixStream) {
        let full = self.connections.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX;
        let this = Arc::clone(self);
        let spawned = (!full).then(|| {
            let talk = move || {
                // A conversation that fails is over; the VM isn't.
                let _ = this.converse(&socket);
                this.connections.fetch_sub(1, Ordering::AcqRel);
            };
            std::thread::Builder::new().name("pageveil-control".into()).spawn(talk)
        });
        if !matches!(spawned, Some(Ok(_))) {
            self.connections.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn converse(&self, mut socket: &UnixStream) -> Result<(), WireError> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let who = peer(socket).map_err(io_error)?;
        if !self.allowed.contains(&who.uid) {
            let words = format!("user {} may not manage this VM", who.uid);
            return refuse(&mut socket, Ask::About, &words);
        }
        while let Some((frame, payload)) = Frame::receive(&mut socket)? {
            let ask = Ask::new(frame.ask.get())?;
            let (a, b) = (frame.a.get(), frame.b.get());
            match ask {
                Ask::About => Frame::new(ask, 0, 0).send(&mut socket, self.about().as_bytes())?,
                Ask::States => self.states(&mut socket, a, b)?,
                Ask::Read => self.read(&mut socket, a, b)?,
                Ask::Write => self.answer(&mut socket, ask, self.write(a, b, &payload))?,
                Ask::Unmap => self.answer(&mut socket, ask, self.unmap(a))?,
                Ask::View => return self.view(socket),
                Ask::Snapshot => self.snapshot(&mut socket)?,
                Ask::Destroy => {
                    let done = self.vm.destroy();
                    self.answer(&mut socket, ask, done)?;
                    self.stop();
                }
            }
            // What was asked may have poisoned a page.
            self.vm.enforce();
            if self.is_over() {
                break;
            }
        }
        Ok(())
    }

    fn about(&self) -> About {
        let incarnation = self.vm.incarnation();
        let guard = self.vm.guard();
        About {
            vm: incarnation.vm.0,
            epoch: U64::new(incarnation.epoch.0),
            pages: U64::new(guard.vm().pages()),
            refused: U64::new(guard.heard().refused),
            runnable: U64::new(guard.vm().runnable().is_ok().into()),
            rekey_due: U64::new(guard.shared().wear.is_rekey_due().into()),
        }
    }

    fn states(&self, socket: &mut &UnixStream, first: u64, count: u64) -> Result<(), WireError> {
        let guard = self.vm.guard();
        let end = first.saturating_add(count.min(1 << 18)).min(guard.vm().pages());
        let states: Vec<u8> = (first..end)
            .filter_map(|number| guard.state(Gfn::new(number).ok()?).ok())
            .map(state_code)
            .collect();
        Frame::new(Ask::States, first, states.len() as u64).send(socket, &states)
    }

    fn read(&self, socket: &mut &UnixStream, first: u64, count: u64) -> Result<(), WireError> {
        let mut payload = Vec::new();
        // Behind the last number there is the last number again, which no page has.
        for number in (0..count.min(PAGES_MAX)).map(|more| first.saturating_add(more)) {
            let looked = Gfn::new(number).map_err(|_| Denied::NoSuchPage(number));
            match looked.and_then(|gfn| Ok((gfn, self.vm.guard().look(gfn)?))) {
                Ok((gfn, look)) => {
                    payload.extend_from_slice(shown(gfn, &look).as_bytes());
                    payload.extend_from_slice(look.bytes.bytes());
                }
                Err(denied) => return refuse(socket, Ask::Read, &denied.to_string()),
            }
        }
        Frame::new(Ask::Read, first, count).send(socket, &payload)
    }

    fn write(&self, page: u64, offset: u64, bytes: &[u8]) -> Result<(), Denied> {
        let gfn = Gfn::new(page).map_err(|_| Denied::NoSuchPage(page))?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.vm.guard().write(gfn, offset, bytes)
    }

    fn unmap(&self, page: u64) -> Result<(), Denied> {
        let gfn = Gfn::new(page).map_err(|_| Denied::NoSuchPage(page))?;
        self.vm.guard().request(gfn, Request::Unmap).map(|_| ())
    }

    fn answer(
        &self,
        socket: &mut &UnixStream,
        ask: Ask,
        done: Result<(), Denied>,
    ) -> Result<(), WireError> {
        match done {
            Ok(()) => Frame::new(ask, 0, 0).send(socket, &[]),
            Err(denied) => refuse(socket, ask, &denied.to_string()),
        }
    }

    /// Hands out the view file, takes the manager's userfaultfd, and serves it to the end.
    fn view(&self, mut socket: &UnixStream) -> Result<(), WireError> {
        let guard = self.vm.guard();
        let pages = guard.vm().pages();
        let file = guard.shared().views.reader();
        let offer = Frame::new(Ask::View, 0, pages);
        send_fd(socket, offer.as_bytes(), file).map_err(io_error)?;
        let mut bytes = [0; size_of::<Frame>()];
        let (got, file) = receive_fd(socket, &mut bytes).map_err(io_error)?;
        let (Some(file), true) = (file, got == bytes.len()) else {
            return refuse(&mut socket, Ask::View, "no userfaultfd came");
        };
        let (frame, _) = Frame::receive(&mut bytes.as_slice())?.ok_or(WireError::NotAFrame)?;
        let pages = guard.shared().views.memory().pages();
        match ForeignUffd::adopt(file.into(), frame.a.get(), pages) {
            Ok(uffd) => {
                Frame::new(Ask::View, 0, 0).send(&mut socket, &[])?;
                viewing::serve(guard, &uffd, socket, || self.is_over())
                    .map_err(|error| io_error(error).into())
            }
            Err(error) => refuse(&mut socket, Ask::View, &error.to_string()),
        }
    }

    fn snapshot(&self, socket: &mut &UnixStream) -> Result<(), WireError> {
        let mut sink = Chunks(socket);
        match self.vm.snapshot(&mut sink) {
            Ok(told) => {
                let micros = u64::try_from(told.stall.as_micros()).unwrap_or(u64::MAX);
                Frame::new(Ask::Snapshot, micros, told.pages).send(socket, &[])
            }
            Err(error) => refuse(socket, Ask::Snapshot, &error.to_string()),
        }
    }
}

/// Closes pages that are due and stops a guest with a poisoned one, whatever the connections do.
fn keep_time(server: &Weak<Server>) {
    while let Some(server) = server.upgrade().filter(|server| !server.is_over()) {
        server.vm.enforce();
        server.vm.guard().expire();
        drop(server);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An image on its way: every write is a frame.
struct Chunks<'s>(&'s UnixStream);

impl io::Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.get(..bytes.len().min(64 * view_core::PAGE_SIZE)).unwrap_or(bytes);
        if !some.is_empty() {
            let frame = Frame::new(Ask::Snapshot, 0, 0);
            frame.send(&mut self.0, some).map_err(|error| {
                if let WireError::Io(error) = error { error } else { io::Error::other(error) }
            })?;
        }
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn shown(gfn: Gfn, look: &Look) -> Shown {
    let (kind, mask) = look.state.terms().map_or((0, 0), |(kind, _, mask)| (kind.0, mask.number()));
    let (version, epoch, tag) =
        look.sealed.map_or((0, 0, [0; 16]), |(id, tag)| (id.version.number(), id.epoch.0, tag));
    Shown {
        gfn: U64::new(gfn.number()),
        version: U64::new(version),
        epoch: U64::new(epoch),
        tag,
        state: state_code(look.state),
        sealed: look.sealed.is_some().into(),
        kind,
        mask,
        padding: U32::new(0),
    }
}

fn refuse(socket: &mut &UnixStream, ask: Ask, words: &str) -> Result<(), WireError> {
    let mut frame = Frame::new(ask, 0, 0);
    frame.status = 1.into();
    frame.send(socket, words.as_bytes())
}

fn io_error(error: SysError) -> io::Error {
    io::Error::from_raw_os_error(error.errno)
}
