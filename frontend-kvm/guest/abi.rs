//! What the toy guest and its trusted process agree on: places, ports, codes, secrets.
//!
//! Both sides compile this file, so it knows neither of them: no allocation, no I/O, no KVM.
//!
//! A doorbell is `in eax, dx` with its arguments in rsi, rdi and r8; what comes back in eax is
//! one of the `code` numbers. `END` and `CONSOLE` are `out dx, al`.

/// Guest frames with a fixed use. The guest's memory is identity-mapped.
pub mod gfn {
    /// The descriptor table.
    pub const GDT: u64 = 1;
    /// The root of the page tables; two more follow it.
    pub const PAGE_TABLES: u64 = 2;
    /// The boot page: the words of [`super::Boot`].
    pub const BOOT: u64 = 5;
    /// The first frame of the stack.
    pub const STACK: u64 = 8;
    /// The first frame behind the stack.
    pub const STACK_END: u64 = 16;
    /// Where the payload is loaded.
    pub const PAYLOAD: u64 = 0x200;
    /// Word 0 counts steps; stored first.
    pub const COUNTER_A: u64 = 0x400;
    /// Word 0 counts steps; stored second.
    pub const COUNTER_B: u64 = 0x401;
    /// Private notes of the guest: the words of [`super::status`].
    pub const STATUS: u64 = 0x402;
    /// The page that the guest shares.
    pub const MAILBOX: u64 = 0x480;
    /// The first page that holds a secret.
    pub const SECRET: u64 = 0x500;
    /// The first page of the working set.
    pub const WORK: u64 = 0x600;
}

/// The fewest pages that a guest can have.
pub const PAGES_MIN: u64 = 0x800;
/// The most pages that a guest can have: one page directory of 2 MiB pages.
pub const PAGES_MAX: u64 = 512 * 512;
/// The most pages of secrets.
pub const SECRET_PAGES_MAX: u64 = gfn::WORK - gfn::SECRET;
/// Words in a page.
pub const WORDS: u64 = 512;

/// Ports that mean something.
pub mod port {
    /// `out`: the guest is done; the byte is its exit code.
    pub const END: u16 = 0x5f0;
    /// `out`: one byte for the console.
    pub const CONSOLE: u16 = 0x5f1;
    /// `in`: share page rsi; rdi is rights | mask << 8, r8 is the expiry.
    pub const SHARE: u16 = 0x5f4;
    /// `in`: take page rsi back.
    pub const UNSHARE: u16 = 0x5f5;
    /// `in`: leave rdi pages from rsi on out of every snapshot.
    pub const EXCLUDE: u16 = 0x5f6;
    /// `in`: rsi steps are done.
    pub const STEP: u16 = 0x5f7;
}

/// What a doorbell answers.
pub mod code {
    /// Done.
    pub const DONE: u32 = 0;
    /// The trusted process will not do it.
    pub const REFUSED: u32 = 1;
    /// The page is in transit; ring again.
    pub const BUSY: u32 = 2;
    /// No such page.
    pub const BAD_PAGE: u32 = 3;
    /// No such rights, or bits that mean nothing.
    pub const BAD_PERM: u32 = 4;
    /// No such mask.
    pub const BAD_MASK: u32 = 5;
    /// No pages, or more than there are.
    pub const BAD_COUNT: u32 = 6;
    /// Not four bytes wide, not once, or in the wrong direction.
    pub const BAD_WIDTH: u32 = 7;
    /// Nobody answers at this port.
    pub const NOBODY: u32 = u32::MAX;
}

/// Codes of rights in a `SHARE`.
pub mod rights {
    /// The other side may read.
    pub const READ: u64 = 1;
    /// The other side may read and write.
    pub const READ_WRITE: u64 = 3;
}

/// What the guest does.
pub mod mode {
    /// Counts with a pause in each step, and does nothing else unless asked.
    pub const SPIN: u64 = 0;
    /// Derives its secrets, shares its mailbox, counts and rewrites its working set.
    pub const COUNTER: u64 = 1;
    /// As `COUNTER`, but takes the mailbox back and shares it again, with secrets in between.
    pub const TOGGLER: u64 = 2;
    /// Rings doorbells that must be refused, notes the answers and ends.
    pub const BAD: u64 = 3;
}

/// Words of the status page.
pub mod status {
    /// [`READY_MARK`] once the secrets are derived and the entropy is wiped.
    pub const READY: u64 = 0;
    /// The answer to the last `SHARE`.
    pub const SHARE_CODE: u64 = 1;
    /// The answer to the last `UNSHARE`.
    pub const UNSHARE_CODE: u64 = 2;
    /// How often the mailbox was taken back.
    pub const TOGGLES: u64 = 3;
    /// Where the answers of a `BAD` guest start.
    pub const BAD: u64 = 16;
    /// What [`READY`] holds then.
    pub const READY_MARK: u64 = 0x7964_6165_7220_6d49; // "Im ready"
}

/// Words of the mailbox while it is shared.
pub mod mailbox {
    /// The first word behind the greeting: how many steps were done.
    pub const STEPS: u64 = 8;
    /// How often it was taken back.
    pub const TOGGLES: u64 = 9;
    /// From here on, public filling.
    pub const FILLING: u64 = 10;
    /// What the filling is.
    pub const FILLING_WORD: u64 = u64::from_le_bytes(*b"public. ");
    /// What the mailbox starts with.
    pub const GREETING: [u8; 64] = greeting();

    const fn greeting() -> [u8; 64] {
        let text = b"Hello from the guest: this page is shared by my own act.";
        let mut bytes = [0; 64];
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text[at];
            at += 1;
        }
        bytes
    }
}

/// What the trusted process tells the guest at its start. "Every" fields count steps; 0: never.
#[derive(Clone, Copy)]
pub struct Boot {
    /// One of [`mode`].
    pub mode: u64,
    /// Pages of guest memory.
    pub pages: u64,
    /// How many pages to fill with secrets.
    pub secret_pages: u64,
    /// How many pages to rewrite round-robin.
    pub work_pages: u64,
    /// How often to rewrite one of them.
    pub work_every: u64,
    /// How often to write progress into the mailbox.
    pub mailbox_every: u64,
    /// How often a toggler takes the mailbox back, or shares it again.
    pub toggle_every: u64,
    /// How often to ring `STEP`.
    pub step_every: u64,
    /// End after so many steps.
    pub steps_max: u64,
    /// The rights that the mailbox is shared with.
    pub share_perm: u64,
    /// The mask that the mailbox is shared with.
    pub share_mask: u64,
    /// The expiry that the mailbox is shared with.
    pub share_expiry: u64,
    /// What the secrets are derived from. The guest wipes it from the boot page.
    pub entropy: [u64; 4],
}

/// The first word of a boot page.
pub const BOOT_MARK: u64 = u64::from_le_bytes(*b"pageveil");
/// Words of a boot page that mean something.
pub const BOOT_WORDS: usize = 17;
/// The first word of the entropy in a boot page.
pub const ENTROPY_WORD: usize = 13;

impl core::fmt::Debug for Boot {
    /// Without the entropy, and without the rest that it would be found beside.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Boot").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Boot {
    /// The words of the boot page.
    pub const fn words(&self) -> [u64; BOOT_WORDS] {
        let [a, b, c, d] = self.entropy;
        [
            BOOT_MARK,
            self.mode,
            self.pages,
            self.secret_pages,
            self.work_pages,
            self.work_every,
            self.mailbox_every,
            self.toggle_every,
            self.step_every,
            self.steps_max,
            self.share_perm,
            self.share_mask,
            self.share_expiry,
            a,
            b,
            c,
            d,
        ]
    }

    /// What the words of a boot page say.
    pub const fn from_words(words: &[u64; BOOT_WORDS]) -> Self {
        Self {
            mode: words[1],
            pages: words[2],
            secret_pages: words[3],
            work_pages: words[4],
            work_every: words[5],
            mailbox_every: words[6],
            toggle_every: words[7],
            step_every: words[8],
            steps_max: words[9],
            share_perm: words[10],
            share_mask: words[11],
            share_expiry: words[12],
            entropy: [words[13], words[14], words[15], words[16]],
        }
    }
}

/// Word `word` of secret page `page`: two keyed SipHash-2-4 of the place, added without carry
/// (of different places, so that equal keys do not cancel out).
///
/// The guest fills its secret pages with it and the trusted process knows what to search for.
pub const fn secret_word(entropy: &[u64; 4], page: u64, word: u64) -> u64 {
    let [a, b, c, d] = *entropy;
    siphash(a, b, page, word) ^ siphash(c, d, !page, word)
}

/// The word that marks working page `page` as rewritten at step `step`.
pub const fn work_check(page: u64, step: u64) -> u64 {
    siphash(BOOT_MARK, page, step, page)
}

/// SipHash-2-4 of two words.
const fn siphash(key0: u64, key1: u64, first: u64, second: u64) -> u64 {
    let mut v = [
        key0 ^ 0x736f_6d65_7073_6575,
        key1 ^ 0x646f_7261_6e64_6f6d,
        key0 ^ 0x6c79_6765_6e65_7261,
        key1 ^ 0x7465_6462_7974_6573,
    ];
    let words = [first, second, 16 << 56];
    let mut at = 0;
    while at < words.len() {
        v[3] ^= words[at];
        v = sip_round(sip_round(v));
        v[0] ^= words[at];
        at += 1;
    }
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(sip_round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn sip_round(v: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

/// One doorbell of a `BAD` guest, and what it must be answered.
#[derive(Clone, Copy, Debug)]
pub struct Try {
    /// Where it rings.
    pub port: u16,
    /// rsi, rdi, r8.
    pub arguments: [u64; 3],
    /// What must come back.
    pub answer: u32,
}

/// How many tries a `BAD` guest makes.
pub const TRIES: u64 = 12;

/// Try number `number` of a `BAD` guest with `pages` pages of memory.
///
/// Number 0 is well-formed and asks for a page that is not the guest's to share: its page tables.
/// Number 1 takes back what was never shared. The rest must not even reach the trusted process.
pub const fn bad_try(number: u64, pages: u64) -> Try {
    let (port, arguments, answer) = match number {
        0 => (port::SHARE, [gfn::PAGE_TABLES, rights::READ_WRITE, 0], code::REFUSED),
        1 => (port::UNSHARE, [gfn::MAILBOX, 0, 0], code::REFUSED),
        2 => (port::SHARE, [pages, rights::READ, 0], code::BAD_PAGE),
        3 => (port::SHARE, [u64::MAX, rights::READ, 0], code::BAD_PAGE),
        4 => (port::SHARE, [gfn::MAILBOX | 1 << 52, rights::READ, 0], code::BAD_PAGE),
        5 => (port::SHARE, [gfn::MAILBOX, 7, 0], code::BAD_PERM),
        6 => (port::SHARE, [gfn::MAILBOX, rights::READ | 1 << 16, 0], code::BAD_PERM),
        7 => (port::SHARE, [gfn::MAILBOX, rights::READ | 200 << 8, 0], code::BAD_MASK),
        8 => (port::UNSHARE, [pages, 0, 0], code::BAD_PAGE),
        9 => (port::EXCLUDE, [gfn::WORK, u64::MAX, 0], code::BAD_COUNT),
        10 => (port::EXCLUDE, [gfn::WORK, 0, 0], code::BAD_COUNT),
        _ => (0x5ee, [0, 0, 0], code::NOBODY),
    };
    Try { port, arguments, answer }
}
