//! The system's side of hardening: who this process is, what it may do, and pages for secrets.
#![expect(unsafe_code, reason = "calls that the standard library has no words for")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::Ordering;

use vmm_sys_util::errno::Error as Errno;

use crate::SysError;
use crate::sys::{Mapping, PAGE, Secrecy};

type Result<T> = std::result::Result<T, SysError>;

/// What `capget` and `capset` call version 3: two words for each set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Whose capabilities, for `capget` and `capset`. Process 0 is the calling thread.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    process: i32,
}

/// One half of a thread's capability sets.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn check(call: &'static str, answer: i64) -> Result<i64> {
    if answer < 0 { Err(SysError::new(call, Errno::last().errno())) } else { Ok(answer) }
}

/// `prctl` of integers only.
fn control(call: &'static str, option: i32, second: u64, third: u64) -> Result<i64> {
    // SAFETY: every caller passes an option of prctl(2) whose arguments are plain integers, so the
    // kernel neither reads nor writes our memory.
    let answer = unsafe { libc::prctl(option, second, third, 0_u64, 0_u64) };
    check(call, answer.into())
}

/// From now on no program that we start gains a right from its file.
pub(crate) fn forbid_new_privileges() -> Result<()> {
    control("prctl(PR_SET_NO_NEW_PRIVS)", libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(|_| ())
}

/// Whether this process can be dumped, and read by others of its user.
pub(crate) fn may_be_dumped() -> Result<bool> {
    Ok(control("prctl(PR_GET_DUMPABLE)", libc::PR_GET_DUMPABLE, 0, 0)? != 0)
}

/// Core files of this process have no bytes, and nobody without rights of their own raises that.
pub(crate) fn forbid_core_files() -> Result<()> {
    let nothing = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel reads one rlimit, which outlives the call.
    let answer = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const nothing) };
    check("setrlimit(RLIMIT_CORE)", answer.into()).map(|_| ())
}

/// The real, effective and saved user of this process.
pub(crate) fn users() -> Result<[u32; 3]> {
    let [mut real, mut effective, mut saved] = [u32::MAX; 3];
    // SAFETY: the kernel writes one number through each of three pointers to locals.
    let answer = unsafe { libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved) };
    check("getresuid", answer.into())?;
    Ok([real, effective, saved])
}

/// The real, effective and saved group of this process.
pub(crate) fn groups() -> Result<[u32; 3]> {
    let [mut real, mut effective, mut saved] = [u32::MAX; 3];
    // SAFETY: the kernel writes one number through each of three pointers to locals.
    let answer = unsafe { libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved) };
    check("getresgid", answer.into())?;
    Ok([real, effective, saved])
}

/// Makes this process a user's: no groups but `id`, no user but `id`, and no way back.
pub(crate) fn become_user(id: u32) -> Result<()> {
    // SAFETY: with a length of 0 the kernel doesn't look at the list.
    check("setgroups", unsafe { libc::setgroups(0, ptr::null()) }.into())?;
    // SAFETY: takes integers only.
    check("setresgid", unsafe { libc::setresgid(id, id, id) }.into())?;
    // SAFETY: takes integers only.
    check("setresuid", unsafe { libc::setresuid(id, id, id) }.into())?;
    Ok(())
}

/// Empties the bounding set, so that no program started later gains a capability, root's or not.
///
/// Counts up until the kernel knows no further capability: those that are newer than this code are
/// dropped too.
pub(crate) fn drop_bounding_set() -> Result<()> {
    for capability in 0..64 {
        match control("prctl(PR_CAPBSET_READ)", libc::PR_CAPBSET_READ, capability, 0) {
            Ok(0) => {}
            Ok(_) => {
                control("prctl(PR_CAPBSET_DROP)", libc::PR_CAPBSET_DROP, capability, 0)?;
            }
            Err(_) => break,
        }
    }
    Ok(())
}

/// Whether the bounding set has nothing in it.
pub(crate) fn bounding_set_is_empty() -> bool {
    let held = |number| control("prctl(PR_CAPBSET_READ)", libc::PR_CAPBSET_READ, number, 0);
    (0..64).map_while(|number| held(number).ok()).all(|held| held == 0)
}

/// Gives up every capability of the calling thread, those that programs would inherit included.
pub(crate) fn drop_capabilities() -> Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    control("prctl(PR_CAP_AMBIENT)", libc::PR_CAP_AMBIENT, clear, 0)?;
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, process: 0 };
    let nothing = [CapabilityWords::default(); 2];
    let (header, words) = (&raw const header, nothing.as_ptr());
    // SAFETY: version 3 has the kernel read one header and two blocks of words, of which both
    // structures are the C layout; both outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_capset, header, words) };
    check("capset", answer).map(|_| ())
}

/// Whether the calling thread has no capability, now or in reserve.
pub(crate) fn has_no_capability() -> Result<bool> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, process: 0 };
    let mut found = [CapabilityWords { effective: 1, ..Default::default() }; 2];
    let (into, words) = (&raw mut header, found.as_mut_ptr());
    // SAFETY: version 3 has the kernel write two blocks of words, and at most the header's version;
    // both are locals of the C layout, and any bytes make them.
    let answer = unsafe { libc::syscall(libc::SYS_capget, into, words) };
    check("capget", answer)?;
    Ok(found == [CapabilityWords::default(); 2])
}

/// Keeps the allocator from opening files later on: it would count processors before it makes an
/// arena, and ask how memory is overcommitted before it gives some of one back.
pub(crate) fn settle_allocator() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [(libc::M_ARENA_MAX, 8), (libc::M_TRIM_THRESHOLD, -1)] {
        // SAFETY: takes integers, under a lock of the allocator's own. What it answers is no
        // matter: one that doesn't know an option doesn't have the habit.
        unsafe { libc::mallopt(option, value) };
    }
}

/// A value in memory that the kernel doesn't map for itself, where the host has such; in locked
/// memory elsewhere. It is in no dump, no child and no swap, and wiped on drop.
///
/// Like a box, but it doesn't print, and what moved through registers and stack on the way in is
/// wiped as far as this can be done from outside the compiler.
pub struct SecretBox<T> {
    pages: Mapping,
    secrecy: Secrecy,
    value: PhantomData<T>,
}

impl<T> SecretBox<T> {
    const ALIGNED: () = assert!(align_of::<T>() <= PAGE);
    const PAGES: usize = if size_of::<T>() == 0 { 1 } else { size_of::<T>().div_ceil(PAGE) };

    /// Makes a value and keeps it in secret memory, on as many pages as it needs.
    ///
    /// # Errors
    /// The host has no such pages for us.
    pub fn make(value: impl FnOnce() -> T) -> Result<Self> {
        const { Self::ALIGNED };
        let (pages, secrecy) = Mapping::private(Self::PAGES)?;
        let this = Self { pages, secrecy, value: PhantomData };
        // A box without its value must not be dropped: its drop would drop what isn't there.
        let this = std::mem::ManuallyDrop::new(this);
        fill(this.place(), value);
        wipe_stack();
        Ok(std::mem::ManuallyDrop::into_inner(this))
    }

    /// Where the value really is.
    pub const fn secrecy(&self) -> Secrecy {
        self.secrecy
    }

    const fn place(&self) -> *mut T {
        self.pages.start().cast::<T>()
    }
}

#[inline(never)]
fn fill<T>(place: *mut T, value: impl FnOnce() -> T) {
    // SAFETY: `place` is the start of pages that are mapped writable, that nobody else knows of,
    // and in which a T fits, size (`PAGES`) and alignment (`ALIGNED`). They hold no value yet.
    unsafe { place.write(value()) };
}

/// Overwrites the stack below the caller, where what it called kept its locals.
#[inline(never)]
fn wipe_stack() {
    // Expanded keys are kilobytes, and are moved a few times before they are where they stay.
    let mut below = [0_u64; 1 << 14];
    zeroize::Zeroize::zeroize(&mut below[..]);
    std::hint::black_box(&below);
}

impl<T> Deref for SecretBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `make` is the only constructor and put a T there; its pages stay mapped, at the
        // same address, as long as self. Nobody has a way to a mutable reference.
        unsafe { &*self.place() }
    }
}

impl<T> Drop for SecretBox<T> {
    fn drop(&mut self) {
        // SAFETY: the T that `make` put there; it is dropped once, here, and not used again.
        unsafe { self.place().drop_in_place() };
        let pages = (0..self.pages.pages()).filter_map(|page| self.pages.words(page));
        for word in pages.flatten() {
            word.store(0, Ordering::Relaxed);
        }
    }
}

impl<T> fmt::Debug for SecretBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretBox").field("secrecy", &self.secrecy).finish_non_exhaustive()
    }
}
