//! The only unsafe file of this crate: mappings, userfaultfd, the memory slot, a few system calls.
//!
//! It knows addresses and descriptors; it knows no guest, no event and no policy. What it hands
//! out is safe to use by construction: readable mappings never lose their pages, and a window
//! that a guest runs on can't be read here at all.
#![expect(unsafe_code, reason = "the system's side of every promise this crate makes")]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use vmm_sys_util::errno::Error as Errno;
use vmm_sys_util::ioctl::{ioctl_expr, ioctl_with_mut_ref, ioctl_with_val};

/// Bytes in a page, as a system call wants them.
pub const PAGE: usize = view_core::PAGE_SIZE;
/// Words in a page.
pub const WORDS: usize = PAGE / 8;

pub use crate::error::SysError;

type Result<T> = std::result::Result<T, SysError>;

fn check<T: Into<i64> + Copy>(call: &'static str, answer: T) -> Result<T> {
    if answer.into() < 0 { Err(SysError::new(call, Errno::last().errno())) } else { Ok(answer) }
}

fn owned(call: &'static str, answer: i64) -> Result<OwnedFd> {
    let number = RawFd::try_from(check(call, answer)?).unwrap_or(-1);
    // SAFETY: every caller passes the answer of a call that makes a new descriptor, which nobody
    // else owns yet; `check` refused the negative ones.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Memory with a descriptor, whose size can never change: no mapping of it can lose its pages.
#[derive(Debug)]
pub struct MemFd {
    file: File,
    pages: usize,
}

impl MemFd {
    const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

    /// `pages` pages of zeroes, closed on exec, sealed against growing and shrinking.
    pub fn create(name: &CStr, pages: usize) -> Result<Self> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is a string with an end that outlives the call; nothing is written.
        let answer = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        let file = File::from(owned("memfd_create", answer.into())?);
        file.set_len((pages * PAGE) as u64).map_err(|e| SysError::io("ftruncate", &e))?;
        // SAFETY: F_ADD_SEALS takes an integer and no pointer; the file is open.
        let sealed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, Self::SEALS) };
        check("fcntl(F_ADD_SEALS)", sealed)?;
        Ok(Self { file, pages })
    }

    /// Memory that somebody else made, if its size is sealed as ours is.
    pub fn adopt(fd: OwnedFd) -> Result<Self> {
        // SAFETY: F_GET_SEALS takes no argument; the descriptor is open.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        let fixed = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        if check("fcntl(F_GET_SEALS)", seals)? & fixed != fixed {
            return Err(SysError::new("fcntl(F_GET_SEALS)", libc::EPERM));
        }
        let file = File::from(fd);
        let bytes = file.metadata().map_err(|e| SysError::io("fstat", &e))?.len();
        let pages = usize::try_from(bytes / PAGE as u64).unwrap_or(0);
        Ok(Self { file, pages })
    }

    /// Takes every right from who would open the file again by its descriptor.
    pub fn close_to_others(&self) -> Result<()> {
        let none = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        self.file.set_permissions(none).map_err(|e| SysError::io("fchmod", &e))
    }

    /// How many pages there are.
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// A second descriptor of the same memory.
    pub fn try_clone(&self) -> Result<Self> {
        let file = self.file.try_clone().map_err(|e| SysError::io("dup", &e))?;
        Ok(Self { file, pages: self.pages })
    }

    /// Gives the pages back to the host; they read as zero in every mapping from now on.
    pub fn punch(&self, first: usize, pages: usize) -> Result<()> {
        let (start, bytes) = span("fallocate", first, pages, self.pages)?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let (start, bytes) = (start as libc::off_t, bytes as libc::off_t);
        // SAFETY: takes integers only; that bytes change under a mapping is what mappings are read
        // for: by atomics in `Mapping`, never in `GuestWindow`.
        check("fallocate", unsafe { libc::fallocate(self.file.as_raw_fd(), mode, start, bytes) })?;
        Ok(())
    }
}

impl AsFd for MemFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Start and length in bytes of `pages` pages from `first` on, if all of them are below `limit`.
fn span(call: &'static str, first: usize, pages: usize, limit: usize) -> Result<(usize, usize)> {
    match first.checked_add(pages) {
        Some(end) if end <= limit => Ok((first * PAGE, pages * PAGE)),
        Some(_) | None => Err(SysError::new(call, libc::ERANGE)),
    }
}

/// A range of address space that is ours; unmapped on drop.
#[derive(Debug)]
struct Range {
    base: NonNull<u8>,
    pages: usize,
}

// SAFETY: a range is an address and a length. What is reached through it is atomics or the kernel.
unsafe impl Send for Range {}
// SAFETY: as above; no method hands out a plain reference into it.
unsafe impl Sync for Range {}

impl Range {
    /// A new mapping of `pages` pages. `fd`: of a file from its start, or of nothing.
    fn new(pages: usize, flags: i32, fd: Option<BorrowedFd<'_>>) -> Result<Self> {
        let (rights, fd) = (libc::PROT_READ | libc::PROT_WRITE, fd.map_or(-1, |f| f.as_raw_fd()));
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
        let at = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, rights, flags, fd, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(base) if at != libc::MAP_FAILED => Ok(Self { base, pages }),
            Some(_) | None => Err(SysError::new("mmap", Errno::last().errno())),
        }
    }

    fn advise(&self, first: usize, pages: usize, advice: i32) -> Result<()> {
        let (start, bytes) = span("madvise", first, pages, self.pages)?;
        let at = self.base.as_ptr().wrapping_add(start).cast();
        // SAFETY: the bytes are ours, and the advices used here drop none of them.
        check("madvise", unsafe { libc::madvise(at, bytes, advice) })?;
        Ok(())
    }

    /// Keeps the pages out of core dumps and out of children.
    fn keep_close(&self, first: usize, pages: usize) -> Result<()> {
        self.advise(first, pages, libc::MADV_DONTDUMP)?;
        self.advise(first, pages, libc::MADV_DONTFORK)
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone and nothing borrowed from it is left: borrows of a
        // mapping end before its drop, and a VM that runs on a window holds the window.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.pages * PAGE) };
    }
}

/// Where the pages of a private mapping are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// In `memfd_secret` memory, which the kernel doesn't map for itself.
    Secret,
    /// In locked anonymous memory: never swapped, but the kernel can reach it.
    Locked,
}

/// Memory that is read and written word by word, because others may change it at any time.
#[derive(Debug)]
pub struct Mapping(Range);

impl Mapping {
    /// A shared mapping of a whole memory file, kept out of dumps and children.
    pub fn shared(memory: &MemFd) -> Result<Self> {
        let range = Range::new(memory.pages, libc::MAP_SHARED, Some(memory.as_fd()))?;
        range.keep_close(0, memory.pages)?;
        Ok(Self(range))
    }

    /// Pages for keys and plain text: secret memory where the host has it, locked memory elsewhere.
    pub fn private(pages: usize) -> Result<(Self, Secrecy)> {
        if let Ok(range) = Self::secret(pages) {
            return Ok((Self(range), Secrecy::Secret));
        }
        let range = Range::new(pages, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None)?;
        range.keep_close(0, pages)?;
        // SAFETY: the bytes are ours; locking doesn't change them.
        check("mlock", unsafe { libc::mlock(range.base.as_ptr().cast(), pages * PAGE) })?;
        Ok((Self(range), Secrecy::Locked))
    }

    /// The descriptor is closed on return: who has it could map the memory again.
    fn secret(pages: usize) -> Result<Range> {
        // SAFETY: takes one integer.
        let answer = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
        let file = File::from(owned("memfd_secret", answer)?);
        file.set_len((pages * PAGE) as u64).map_err(|e| SysError::io("ftruncate", &e))?;
        let range = Range::new(pages, libc::MAP_SHARED, Some(file.as_fd()))?;
        range.keep_close(0, pages)?;
        Ok(range)
    }

    /// What a vCPU and the kernel tell each other.
    pub(crate) fn of_vcpu(vcpu: &VcpuFd, bytes: usize) -> Result<Self> {
        // SAFETY: the vCPU is open for as long as its descriptor is borrowed here.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let range = Range::new(bytes / PAGE, libc::MAP_SHARED, Some(fd))?;
        range.keep_close(0, bytes / PAGE)?;
        Ok(Self(range))
    }

    /// How many pages there are.
    pub const fn pages(&self) -> usize {
        self.0.pages
    }

    /// Where the first page begins.
    pub(crate) const fn start(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }

    /// The words of one page; `None` behind the end.
    pub fn words(&self, page: usize) -> Option<&[AtomicU64; WORDS]> {
        if page >= self.0.pages {
            return None;
        }
        let at = self.0.base.as_ptr().wrapping_add(page * PAGE).cast::<[AtomicU64; WORDS]>();
        // SAFETY: the page is mapped readable and writable while self lives (the file behind it
        // can't shrink), page-aligned, never null, and atomics may change under a reference.
        Some(unsafe { &*at })
    }
}

/// The address range that a guest runs on. Single pages can be switched, closed and restored
/// while it runs; nobody reads the guest's memory here.
#[derive(Debug)]
pub struct GuestWindow {
    range: Range,
    memory: MemFd,
}

impl GuestWindow {
    /// A window on a whole memory file, kept out of dumps and children.
    pub fn new(memory: MemFd) -> Result<Self> {
        let range = Range::new(memory.pages, libc::MAP_SHARED, Some(memory.as_fd()))?;
        range.keep_close(0, memory.pages)?;
        Ok(Self { range, memory })
    }

    /// Shows page `from` of `other` at page `page`. On return no vCPU reaches the page before it.
    pub fn switch(&self, page: usize, other: &MemFd, from: usize) -> Result<()> {
        let (offset, _) = span("mmap(MAP_FIXED)", from, 1, other.pages)?;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        self.fix(page, rights, libc::MAP_SHARED, other.file.as_raw_fd(), offset)
    }

    /// Shows the window's own page again.
    pub fn restore(&self, page: usize) -> Result<()> {
        self.switch(page, &self.memory, page)
    }

    /// Shows nothing at page `page`: a vCPU that touches it comes out with `EFAULT`.
    pub fn close(&self, page: usize) -> Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.fix(page, libc::PROT_NONE, flags, -1, 0)
    }

    fn fix(&self, page: usize, rights: i32, flags: i32, fd: RawFd, offset: usize) -> Result<()> {
        let (start, bytes) = span("mmap(MAP_FIXED)", page, 1, self.range.pages)?;
        let at = self.range.base.as_ptr().wrapping_add(start).cast();
        let (flags, offset) = (flags | libc::MAP_FIXED, offset as libc::off_t);
        // SAFETY: replaces one page inside our own range, into which no reference points; the
        // kernel takes the page from the VM before it answers (its MMU notifier).
        let got = unsafe { libc::mmap(at, bytes, rights, flags, fd, offset) };
        if got == libc::MAP_FAILED {
            return Err(SysError::new("mmap(MAP_FIXED)", Errno::last().errno()));
        }
        self.range.keep_close(page, 1)
    }

    /// How many pages there are.
    pub const fn pages(&self) -> usize {
        self.range.pages
    }
}

/// A VM together with the window that is its memory, so that neither outlives the other.
pub(crate) struct WindowedVm {
    vm: VmFd,
    window: Arc<GuestWindow>,
}

/// A vCPU together with its VM's window. The vCPU keeps the VM alive in the kernel.
pub(crate) struct WindowedVcpu {
    pub(crate) fd: VcpuFd,
    _window: Arc<GuestWindow>,
}

impl WindowedVm {
    /// Gives the VM its memory: slot 0, from guest address 0.
    pub(crate) fn new(vm: VmFd, window: Arc<GuestWindow>) -> Result<Self> {
        let this = Self { vm, window };
        this.note_writes(false)?;
        Ok(this)
    }

    /// Whether KVM notes the pages that its guest writes.
    pub(crate) fn note_writes(&self, on: bool) -> Result<()> {
        let slot = kvm_userspace_memory_region {
            flags: if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            memory_size: (self.window.pages() * PAGE) as u64,
            userspace_addr: self.window.range.base.as_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the range stays mapped and ours while the VM or a vCPU of it can run, since each
        // is kept in one struct with a share of the window.
        unsafe { self.vm.set_user_memory_region(slot) }
            .map_err(|e| SysError::kvm("KVM_SET_USER_MEMORY_REGION", e))
    }

    /// A bit for each page written since the last call.
    pub(crate) fn written(&self) -> Result<Vec<u64>> {
        let log = self.vm.get_dirty_log(0, self.window.pages() * PAGE);
        log.map_err(|e| SysError::kvm("KVM_GET_DIRTY_LOG", e))
    }

    pub(crate) fn vcpu(&self, number: u8) -> Result<WindowedVcpu> {
        let fd = self.vm.create_vcpu(number.into());
        let fd = fd.map_err(|e| SysError::kvm("KVM_CREATE_VCPU", e))?;
        Ok(WindowedVcpu { fd, _window: Arc::clone(&self.window) })
    }

    /// Loads vector state. Refused where the kernel would read more than the structure has.
    pub(crate) fn load_xsave(&self, vcpu: &VcpuFd, state: &kvm_xsave) -> Result<()> {
        let bytes = self.vm.check_extension_int(Cap::Xsave2);
        if usize::try_from(bytes).unwrap_or(0) > size_of::<kvm_xsave>() {
            return Err(SysError::new("KVM_SET_XSAVE", libc::E2BIG));
        }
        // SAFETY: the kernel reads as many bytes as it says for KVM_CAP_XSAVE2, or 4096 where it
        // doesn't know that word; both fit, as was just asked.
        unsafe { vcpu.set_xsave(state) }.map_err(|e| SysError::kvm("KVM_SET_XSAVE", e))
    }
}

/// A userfaultfd request: its name, its number, and how many words its argument has.
#[derive(Debug)]
pub(crate) struct Request<const N: usize>(pub(crate) &'static str, libc::c_ulong);

const fn uffd<const N: usize>(name: &'static str, direction: u32, number: u32) -> Request<N> {
    Request(name, ioctl_expr(direction, 0xaa, number, (N * 8) as u32))
}

const IOC_READ: u32 = 2;
const IOC_READ_WRITE: u32 = 3;
const API: Request<3> = uffd("UFFDIO_API", IOC_READ_WRITE, 0x3f);
const COPY: Request<5> = uffd("UFFDIO_COPY", IOC_READ_WRITE, 0x03);
const DEVICE_NEW: Request<0> = uffd("USERFAULTFD_IOC_NEW", 0, 0x00);
// These take a range of addresses first.
pub(crate) const REGISTER: Request<4> = uffd("UFFDIO_REGISTER", IOC_READ_WRITE, 0x00);
pub(crate) const UNREGISTER: Request<2> = uffd("UFFDIO_UNREGISTER", IOC_READ, 0x01);
pub(crate) const WAKE: Request<2> = uffd("UFFDIO_WAKE", IOC_READ, 0x02);
pub(crate) const ZEROPAGE: Request<4> = uffd("UFFDIO_ZEROPAGE", IOC_READ_WRITE, 0x04);
pub(crate) const WRITEPROTECT: Request<3> = uffd("UFFDIO_WRITEPROTECT", IOC_READ_WRITE, 0x06);
pub(crate) const CONTINUE: Request<4> = uffd("UFFDIO_CONTINUE", IOC_READ_WRITE, 0x07);

/// A userfaultfd. What can be asked of it is in the module `uffd`.
#[derive(Debug)]
pub struct Uffd {
    pub(crate) file: File,
    pub(crate) features: u64,
    pub(crate) serves_guests: bool,
}

impl Uffd {
    /// Opens one with at least the `features` asked for, by whichever door is open: the system
    /// call, the device, or the call for faults of user mode only.
    pub fn open(features: u64) -> Result<Self> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: takes one integer.
        let full = || unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        // SAFETY: as above; 1 is UFFD_USER_MODE_ONLY.
        let user_only = || unsafe { libc::syscall(libc::SYS_userfaultfd, flags | 1) };
        let (fd, serves_guests) = match owned("userfaultfd", full()) {
            Ok(fd) => (fd, true),
            Err(_) => match Self::from_device(flags) {
                Ok(fd) => (fd, true),
                Err(_) => (owned("userfaultfd", user_only())?, false),
            },
        };
        let mut this = Self { file: File::from(fd), features: 0, serves_guests };
        let mut words = [0xaa, features, 0];
        this.call(&API, &mut words)?;
        this.features = words[1];
        if this.features & features == features {
            Ok(this)
        } else {
            Err(SysError::new("UFFDIO_API", libc::EOPNOTSUPP))
        }
    }

    fn from_device(flags: i32) -> Result<OwnedFd> {
        let device = File::open("/dev/userfaultfd").map_err(|e| SysError::io("open", &e))?;
        // SAFETY: the request takes an integer and makes a descriptor.
        let answer = unsafe { ioctl_with_val(&device, DEVICE_NEW.1, flags as libc::c_ulong) };
        owned(DEVICE_NEW.0, answer.into())
    }

    fn call<const N: usize>(&self, request: &Request<N>, words: &mut [u64; N]) -> Result<()> {
        // SAFETY: the argument has the size that is part of the request's number. The addresses in
        // it are pages of a window, into which no reference points, or a borrowed source page.
        check(request.0, unsafe { ioctl_with_mut_ref(&self.file, request.1, words) })?;
        Ok(())
    }

    /// A request about pages of a window; `third` is the word behind the range, if it has one.
    pub(crate) fn on_pages<const N: usize>(
        &self,
        request: &Request<N>,
        window: &GuestWindow,
        (first, pages): (usize, usize),
        third: u64,
    ) -> Result<()> {
        let (start, bytes) = span(request.0, first, pages, window.pages())?;
        let address = window.range.base.as_ptr() as u64 + start as u64;
        let mut words = [0; N];
        for (word, value) in words.iter_mut().zip([address, bytes as u64, third]) {
            *word = value;
        }
        self.call(request, &mut words)
    }

    /// Fills a missing page with `bytes` at once, and lets those go on who wait for it.
    pub fn copy(&self, window: &GuestWindow, page: usize, bytes: &view_core::Page) -> Result<()> {
        let (start, length) = span(COPY.0, page, 1, window.pages())?;
        let address = window.range.base.as_ptr() as u64 + start as u64;
        let source = ptr::from_ref(bytes.bytes()) as u64;
        self.call(&COPY, &mut [address, source, length as u64, 0, 0])
    }
}

impl AsRawFd for Uffd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl GuestWindow {
    /// Which page of the window an address is in.
    pub(crate) fn page_at(&self, address: u64) -> Option<usize> {
        let offset = address.checked_sub(self.range.base.as_ptr() as u64)?;
        let page = usize::try_from(offset).ok()? / PAGE;
        (page < self.range.pages).then_some(page)
    }
}

/// Keeps this process out of core dumps, and from being traced or read by others of its user.
pub fn forbid_dumps() -> Result<()> {
    // SAFETY: takes integers only.
    check("prctl(PR_SET_DUMPABLE)", unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    Ok(())
}

/// Who is at the other end of a socket, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Who connected, at the time it did.
pub fn peer(socket: &UnixStream) -> Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
    let (fd, into) = (socket.as_raw_fd(), ptr::from_mut(&mut found).cast());
    // SAFETY: the kernel writes at most `bytes` bytes to `found` and the count to `bytes`; both
    // outlive the call, and any bytes make a ucred.
    let answer =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &raw mut bytes) };
    check("getsockopt(SO_PEERCRED)", answer)?;
    Ok(Peer { pid: found.pid, uid: found.uid, gid: found.gid })
}
