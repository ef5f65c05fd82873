//! One vCPU on a thread of its own: run, park, answer.
//!
//! A request to stop running is three stores in this order: what is wanted, the kernel's
//! immediate-exit byte, a signal. The vCPU's thread clears the byte before it reads what is wanted.
//! So whichever of the two comes first, either the thread reads the new wish or the next `KVM_RUN`
//! returns at once: no request is lost, and no handler runs in the signal.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use kvm_bindings::kvm_run;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};
use zerocopy::IntoBytes;
use zeroize::Zeroize;

use crate::abi::port;
use crate::exit::{Crash, GuestEvent, Malformed, RawExit, decode};
use crate::machine::{Handler, MachineError, OnFault, Reply};
use crate::sys::{Mapping, PAGE, SysError, WindowedVcpu};

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuStatus {
    /// It can go on, and its state can be saved and loaded.
    Paused,
    /// It runs, or its handler does.
    Running,
    /// The guest ended with this code.
    Ended(u8),
    /// It can't go on.
    Crashed(Crash),
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Want {
    Pause,
    Run,
    Stop,
}

/// What the vCPU's thread and its callers share.
struct Shared {
    number: u8,
    pages: u64,
    vcpu: Mutex<WindowedVcpu>,
    run_page: Mapping,
    want: AtomicU8,
    status: Mutex<VcpuStatus>,
    changed: Condvar,
}

/// A vCPU. Its thread is there from `start` to `stop`.
pub(crate) struct Vcpu {
    shared: Arc<Shared>,
    /// Held for the length of start, pause, resume and stop, and taken before the status.
    thread: Mutex<Option<JoinHandle<()>>>,
}

extern "C" fn woken(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The signal that takes a vCPU out of `KVM_RUN`. Its handler does nothing.
pub(crate) fn kick_signal() -> Result<libc::c_int, SysError> {
    static READY: OnceLock<Result<(), i32>> = OnceLock::new();
    let signal = SIGRTMIN();
    READY
        .get_or_init(|| register_signal_handler(signal, woken).map_err(|e| e.errno()))
        .map_err(|errno| SysError::new("sigaction", errno))?;
    Ok(signal)
}

impl Vcpu {
    pub(crate) fn new(
        number: u8,
        vcpu: WindowedVcpu,
        shared_bytes: usize,
        pages: u64,
    ) -> Result<Self, SysError> {
        kick_signal()?;
        let run_page = Mapping::of_vcpu(&vcpu.fd, shared_bytes)?;
        let shared = Shared {
            number,
            pages,
            vcpu: Mutex::new(vcpu),
            run_page,
            want: AtomicU8::new(Want::Pause as u8),
            status: Mutex::new(VcpuStatus::Paused),
            changed: Condvar::new(),
        };
        Ok(Self { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    pub(crate) fn start(&self, handler: Arc<dyn Handler>) -> Result<(), MachineError> {
        let mut thread = lock(&self.thread);
        if thread.is_some() {
            return Err(MachineError::AlreadyStarted);
        }
        let shared = Arc::clone(&self.shared);
        shared.wish(Want::Run, &mut shared.lock());
        let made = std::thread::Builder::new()
            .name(format!("pageveil-vcpu{}", shared.number))
            .spawn(move || shared.live(&*handler))
            .map_err(|e| SysError::io("clone", &e))?;
        *thread = Some(made);
        Ok(())
    }

    /// On return the vCPU doesn't run, its last exit is complete, and its handler has returned.
    pub(crate) fn pause(&self) -> VcpuStatus {
        let thread = lock(&self.thread);
        let mut status = self.shared.lock();
        self.shared.run_no_more(&mut status);
        if let Some(thread) = &*thread {
            self.shared.kick(thread);
        }
        while *status == VcpuStatus::Running {
            status = wait(&self.shared.changed, status);
        }
        *status
    }

    pub(crate) fn resume(&self) -> Result<(), MachineError> {
        let thread = lock(&self.thread);
        if thread.is_none() {
            return Err(MachineError::NotStarted);
        }
        let mut status = self.shared.lock();
        match *status {
            VcpuStatus::Paused | VcpuStatus::Running => self.shared.wish(Want::Run, &mut status),
            done @ (VcpuStatus::Ended(_) | VcpuStatus::Crashed(_)) => {
                return Err(MachineError::Over(done));
            }
        }
        Ok(())
    }

    /// On return the thread is gone.
    pub(crate) fn stop(&self) {
        let mut held = lock(&self.thread);
        let Some(thread) = held.take() else { return };
        self.shared.wish(Want::Stop, &mut self.shared.lock());
        self.shared.kick(&thread);
        // A handler's panic is kept as a crash by then.
        let _ = thread.join();
        self.shared.wish(Want::Pause, &mut self.shared.lock());
    }

    pub(crate) fn status(&self) -> VcpuStatus {
        *self.shared.lock()
    }

    /// Waits until the vCPU does not run by itself, or the time is over.
    pub(crate) fn wait(&self, most: std::time::Duration) -> VcpuStatus {
        let busy = |status: &mut VcpuStatus| self.shared.is_busy(*status);
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), most, busy);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Does something with the vCPU while it does not run; nobody can resume it meanwhile.
    pub(crate) fn with_parked<T>(
        &self,
        work: impl FnOnce(&VcpuFd) -> Result<T, MachineError>,
    ) -> Result<T, MachineError> {
        let status = self.shared.lock();
        if self.shared.is_busy(*status) {
            return Err(MachineError::NotPaused);
        }
        work(&lock(&self.shared.vcpu).fd)
    }

    /// The same for new state: whatever the vCPU was before, it can go on then.
    pub(crate) fn revive(
        &self,
        work: impl FnOnce(&VcpuFd) -> Result<(), MachineError>,
    ) -> Result<(), MachineError> {
        let mut status = self.shared.lock();
        if self.shared.is_busy(*status) {
            return Err(MachineError::NotPaused);
        }
        work(&lock(&self.shared.vcpu).fd)?;
        self.shared.run_no_more(&mut status);
        *status = VcpuStatus::Paused;
        Ok(())
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'l, T>(changed: &Condvar, held: MutexGuard<'l, T>) -> MutexGuard<'l, T> {
    changed.wait(held).unwrap_or_else(PoisonError::into_inner)
}

/// Parks the vCPU when it goes out of scope, even by a handler's panic.
struct Running<'s>(&'s Shared, VcpuStatus);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut status = self.0.lock();
        *status = self.1;
        self.0.changed.notify_all();
    }
}

/// Word 0 of the page shared with the kernel: its second byte is the immediate exit.
const EXIT_NOW: u64 = 1 << (8 * offset_of!(kvm_run, immediate_exit));
/// Word 5: where the bytes of port I/O are.
const IO_OFFSET: usize = offset_of!(kvm_run, __bindgen_anon_1) / 8 + 1;
const _: () = assert!(IO_OFFSET == 5);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VcpuStatus> {
        lock(&self.status)
    }

    /// Changes what is wanted; the guard shows that nobody waits in between.
    fn wish(&self, want: Want, _held: &mut MutexGuard<'_, VcpuStatus>) {
        self.want.store(want as u8, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// If running is wanted, wishes for a pause. A wish to stop stands.
    fn run_no_more(&self, held: &mut MutexGuard<'_, VcpuStatus>) {
        if self.wants() == Want::Run as u8 {
            self.wish(Want::Pause, held);
        }
    }

    /// Whether the vCPU runs or is about to.
    fn is_busy(&self, status: VcpuStatus) -> bool {
        let about_to = status == VcpuStatus::Paused && self.wants() == Want::Run as u8;
        about_to || status == VcpuStatus::Running
    }

    fn wants(&self) -> u8 {
        self.want.load(Ordering::SeqCst)
    }

    fn kick(&self, thread: &JoinHandle<()>) {
        self.exit_now(EXIT_NOW);
        // Who is not in KVM_RUN any more needs no signal, so a failure means nothing.
        let _ = thread.kill(SIGRTMIN());
    }

    fn exit_now(&self, value: u64) {
        if let Some([word, ..]) = self.run_page.words(0) {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn live(&self, handler: &dyn Handler) {
        while self.wait_for_run() {
            let mut running = Running(self, VcpuStatus::Crashed(Crash::Handler));
            running.1 = self.run(handler);
        }
    }

    /// Waits until running is wanted and possible. False: stopping is wanted.
    fn wait_for_run(&self) -> bool {
        let mut status = self.lock();
        loop {
            let want = self.wants();
            if want == Want::Stop as u8 {
                return false;
            }
            if want == Want::Run as u8 && *status == VcpuStatus::Paused {
                *status = VcpuStatus::Running;
                return true;
            }
            status = wait(&self.changed, status);
        }
    }

    fn run(&self, handler: &dyn Handler) -> VcpuStatus {
        let mut vcpu = lock(&self.vcpu);
        loop {
            if !handler.may_enter(self.number) {
                // The kernel completes what the last exit left open, and enters no guest.
                self.run_no_more(&mut self.lock());
                self.exit_now(EXIT_NOW);
            }
            let exit = match raw_exit(&mut vcpu.fd) {
                Ok(exit) => exit,
                Err(libc::EINTR) => {
                    self.exit_now(0);
                    if self.wants() == Want::Run as u8 {
                        continue;
                    }
                    return VcpuStatus::Paused;
                }
                Err(libc::EAGAIN) => continue,
                Err(libc::EFAULT) => match handler.fault(self.number) {
                    OnFault::Retry => continue,
                    OnFault::Stop => RawExit::Dead(Crash::Fault),
                },
                Err(errno) => RawExit::Dead(Crash::Run(errno)),
            };
            let event = decode(exit, self.pages);
            let reply = handler.event(self.number, event);
            match event {
                GuestEvent::End(code) => {
                    self.complete(&mut vcpu.fd);
                    return VcpuStatus::Ended(code);
                }
                GuestEvent::Crashed(crash) => return VcpuStatus::Crashed(crash),
                GuestEvent::Doorbell(_) => self.answer(reply.code()),
                GuestEvent::Malformed(Malformed { what, .. }) => self.answer(what.code()),
                GuestEvent::Console(_) | GuestEvent::Unknown(_) => {}
            }
            if let Reply::Pause(_) = reply {
                self.run_no_more(&mut self.lock());
                self.exit_now(EXIT_NOW);
            }
        }
    }

    /// Enters the kernel once more, so that it finishes the exit's instruction, and comes out.
    fn complete(&self, vcpu: &mut VcpuFd) {
        self.exit_now(EXIT_NOW);
        // It comes out with EINTR before any further instruction; there is nothing to learn.
        let _ = vcpu.run().map(|_| ());
        self.exit_now(0);
    }

    /// Puts the answer to an `in` where the kernel takes it from. All ones if it is wider.
    fn answer(&self, code: u32) {
        let Some(words) = self.run_page.words(0) else { return };
        let offset = words[IO_OFFSET].load(Ordering::Relaxed) as usize;
        let word: Option<&AtomicU64> =
            self.run_page.words(offset / PAGE).and_then(|words| words.get(offset % PAGE / 8));
        if let Some(word) = word {
            let kept = word.load(Ordering::Relaxed) & !u64::from(u32::MAX);
            word.store(kept | u64::from(code), Ordering::Relaxed);
        }
    }
}

/// Runs the vCPU until it comes out, and copies out why. Loads from nowhere get all ones.
fn raw_exit(vcpu: &mut VcpuFd) -> Result<RawExit, i32> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "an exit nobody asked for ends the guest")]
    let exit = match vcpu.run().map_err(|e| e.errno())? {
        VcpuExit::IoOut(port, bytes) => {
            let byte = bytes.first().copied().unwrap_or(0);
            RawExit::Out { port, byte, width: bytes.len() }
        }
        VcpuExit::IoIn(port, bytes) => {
            bytes.fill(0xff);
            RawExit::In { port, width: bytes.len(), arguments: [0; 3] }
        }
        VcpuExit::MmioRead(address, bytes) => {
            bytes.fill(0xff);
            RawExit::MmioRead { address, width: bytes.len() }
        }
        VcpuExit::MmioWrite(address, bytes) => RawExit::MmioWrite { address, width: bytes.len() },
        VcpuExit::Intr => return Err(libc::EINTR),
        VcpuExit::Hlt => RawExit::Dead(Crash::Halt),
        VcpuExit::Shutdown => RawExit::Dead(Crash::Shutdown),
        VcpuExit::FailEntry(reason, _) => RawExit::Dead(Crash::Entry(reason)),
        VcpuExit::InternalError => RawExit::Dead(Crash::Internal),
        VcpuExit::MemoryFault { .. } => return Err(libc::EFAULT),
        _ => RawExit::Dead(Crash::Unasked),
    };
    if let RawExit::In { port: port @ port::SHARE..=port::STEP, width, .. } = exit {
        return Ok(RawExit::In { port, width, arguments: arguments(vcpu)? });
    }
    Ok(exit)
}

/// The registers that carry a doorbell's arguments; no other register is kept.
fn arguments(vcpu: &VcpuFd) -> Result<[u64; 3], i32> {
    let mut regs = vcpu.get_regs().map_err(|e| e.errno())?;
    let arguments = [regs.rsi, regs.rdi, regs.r8];
    regs.as_mut_bytes().zeroize();
    Ok(arguments)
}
