//! The plain VMM on a real KVM: what its devices answer, what its door shows, what its orders do.
//!
//! Guests are a few instructions, put together here.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::kvm;
use frontend_kvm::GuestMemory;
use frontend_kvm::plain::abi::{self, DEVICE, GREETING, REPLY, boot, gfn, port};
use frontend_kvm::plain::{Guest, Host, PlainError, PlainVm, Stop, door};
use view_core::Gfn;

const PAGES: u64 = abi::PAGES_MIN;
/// A page that no image reaches.
const PLACE: u64 = 0x20;

/// Instructions of a guest.
#[derive(Default)]
struct Code(Vec<u8>);

impl Code {
    fn and(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `mov dx, port`.
    fn port(self, port: u16) -> Self {
        self.and(&[0x66, 0xba]).and(&port.to_le_bytes())
    }

    /// `mov rax, value`.
    fn rax(self, value: u64) -> Self {
        self.and(&[0x48, 0xb8]).and(&value.to_le_bytes())
    }

    /// `mov rbx, value`.
    fn rbx(self, value: u64) -> Self {
        self.and(&[0x48, 0xbb]).and(&value.to_le_bytes())
    }

    /// `out dx, al | ax | eax`.
    fn out(self, width: usize) -> Self {
        self.and(match width {
            1 => &[0xee],
            2 => &[0x66, 0xef],
            _ => &[0xef],
        })
    }

    /// `in al | ax | eax, dx`.
    fn take(self, width: usize) -> Self {
        self.and(match width {
            1 => &[0xec],
            2 => &[0x66, 0xed],
            _ => &[0xed],
        })
    }

    /// Eight bytes of rax to the console, the lowest one first: `out dx, al; shr rax, 8`.
    fn tell(self) -> Self {
        (0..8).fold(self.port(port::CONSOLE), |code, _| code.out(1).and(&[0x48, 0xc1, 0xe8, 8]))
    }

    /// Ends the guest with this code.
    fn end(self, code: u8) -> Self {
        self.port(port::END).rax(code.into()).out(1)
    }

    fn vm(&self, host: &Host) -> PlainVm {
        PlainVm::new(host, &Guest { image: &self.0, pages: PAGES, words: &[] }).unwrap()
    }

    fn told(&self, host: &Host) -> Vec<u64> {
        told(self.vm(host))
    }
}

/// Runs a guest to its end. What it told, as words.
fn told(mut vm: PlainVm) -> Vec<u64> {
    let mut bytes = vec![];
    loop {
        let stop = vm.run();
        match stop {
            Stop::Console(byte) => bytes.push(byte),
            Stop::Rang(..) | Stop::Device | Stop::Signal => {}
            Stop::Ended(_) | Stop::Mailbox(_) | Stop::Nobody(_) | Stop::Dead(_) => {
                assert_eq!(stop, Stop::Ended(0));
                return bytes.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
            }
        }
    }
}

fn host(test: &str) -> Option<Host> {
    kvm(test)?;
    Some(Host::open().unwrap())
}

fn place(number: u64) -> Gfn {
    Gfn::new(number).unwrap()
}

#[test]
fn the_doorbell_answers_what_was_rung_at_every_width() {
    let Some(host) = host("the_doorbell_answers_what_was_rung_at_every_width") else { return };
    let mut code = Code::default();
    let (value, old) = (0x8877_6655_4433_2211, 0x0bad_0bad_0bad_0bad);
    for width in [1, 2, 4] {
        code = code.port(port::DOORBELL).rax(value).out(width).rax(old).take(width).tell();
    }
    let answer = |mask: u64| abi::answer(value & mask) & mask;
    let expected = [
        old & !0xff | answer(0xff),
        old & !0xffff | answer(0xffff),
        answer(0xffff_ffff), // four bytes clear what is above them
    ];
    assert_eq!(code.end(0).told(&host), expected);
}

#[test]
fn the_device_answers_what_was_stored_anywhere_in_its_page() {
    let Some(host) = host("the_device_answers_what_was_stored_anywhere_in_its_page") else {
        return;
    };
    let value = 0x8877_6655_4433_2211;
    let store_8 = [0x48, 0x89, 0x43, 0x18]; // mov [rbx + 0x18], rax
    let store_4 = [0x89, 0x83, 0xf8, 0x0f, 0, 0]; // mov [rbx + 0xff8], eax
    let load_8 = [0x48, 0x8b, 0x03]; // mov rax, [rbx]
    let code = Code::default().rbx(DEVICE).rax(value).and(&store_8).and(&load_8).tell();
    let code = code.rax(value).and(&store_4).and(&load_8).tell();
    let expected = [abi::answer(value), abi::answer(value & 0xffff_ffff)];
    assert_eq!(code.end(0).told(&host), expected);
}

#[test]
fn what_nobody_answers_is_said() {
    let Some(host) = host("what_nobody_answers_is_said") else { return };
    let at_port = Code::default().port(0x1234).out(1);
    assert_eq!(at_port.vm(&host).run(), Stop::Nobody(0x1234));
    let from_port = Code::default().port(0x1234).take(1);
    assert_eq!(from_port.vm(&host).run(), Stop::Nobody(0x1234));
    let wide_end = Code::default().port(port::END).out(4);
    assert_eq!(wide_end.vm(&host).run(), Stop::Nobody(port::END.into()));
    let behind = Code::default().rbx(DEVICE + 0x1000).and(&[0x48, 0x8b, 0x03]);
    assert_eq!(behind.vm(&host).run(), Stop::Nobody(DEVICE + 0x1000));
}

#[test]
fn a_guest_is_told_its_words_and_where_its_image_ends() {
    let Some(host) = host("a_guest_is_told_its_words_and_where_its_image_ends") else { return };
    let boot_page = gfn::BOOT << 12;
    let told = |word: u64| {
        let load = [0x48, 0x8b, 0x03]; // mov rax, [rbx]
        let image = Code::default().rbx(boot_page + word * 8).and(&load).tell().end(0).0;
        let guest = Guest { image: &image, pages: PAGES, words: &[0x5eed, 7] };
        told(PlainVm::new(&host, &guest).unwrap())[0]
    };
    assert_eq!(told(boot::MARK), boot::MARK_WORD);
    assert_eq!(told(boot::PAGES), PAGES);
    assert_eq!(told(boot::IMAGE_END), gfn::IMAGE + 1);
    assert_eq!([told(boot::WORDS), told(boot::WORDS + 1)], [0x5eed, 7]);
}

#[test]
fn a_mailbox_is_answered_only_if_there_is_a_greeting() {
    let Some(host) = host("a_mailbox_is_answered_only_if_there_is_a_greeting") else { return };
    let mut vm = Code::default().port(port::MAILBOX).rax(PLACE).out(4).vm(&host);
    assert_eq!(vm.run(), Stop::Mailbox(place(PLACE)));
    let word = |vm: &PlainVm, at| vm.memory().read_word(place(PLACE), at).unwrap();
    assert!(!vm.reply(place(PLACE)).unwrap());
    assert_eq!([word(&vm, 2), word(&vm, 3)], [0, 0]);
    for (at, value) in (0..).zip(GREETING) {
        vm.memory().write_word(place(PLACE), at, value).unwrap();
    }
    assert!(vm.reply(place(PLACE)).unwrap());
    assert_eq!([word(&vm, 2), word(&vm, 3)], REPLY);
    assert!(vm.reply(place(PAGES)).is_err(), "no such page");
}

#[test]
fn the_door_shows_what_registers_and_pages_hold() {
    let Some(host) = host("the_door_shows_what_registers_and_pages_hold") else { return };
    let code = Code::default().rbx(0x5eed_5eed_5eed_5eed).port(port::DOORBELL).rax(1).out(1);
    let mut vm = code.vm(&host);
    assert_eq!(vm.run(), Stop::Rang(1, 1));
    let mut record = vec![];
    door::registers(&vm, &mut record).unwrap();
    assert_eq!(record.len(), door::RECORD);
    let general = &record[..door::GENERAL];
    assert_eq!(general[8..16], 0x5eed_5eed_5eed_5eed_u64.to_le_bytes(), "rbx is the second");
    vm.memory().write_word(place(PLACE), 1, 0x1234).unwrap();
    let mut pages = vec![];
    door::memory(&vm, &mut pages).unwrap();
    assert_eq!(pages.len() as u64, PAGES << 12);
    let at = (PLACE << 12) as usize + 8;
    assert_eq!(pages[at..at + 2], [0x34, 0x12]);
}

#[test]
fn registers_that_are_set_are_the_guests() {
    let Some(host) = host("registers_that_are_set_are_the_guests") else { return };
    let rax_from_r15 = [0x4c, 0x89, 0xf8];
    let code =
        Code::default().port(port::DOORBELL).out(1).and(&rax_from_r15).port(port::END).out(1);
    let mut vm = code.vm(&host);
    assert_eq!(vm.run(), Stop::Rang(0, 1));
    let mut registers = vm.registers().unwrap();
    registers.r15 = 42;
    vm.set_registers(&registers).unwrap();
    assert_eq!(vm.run(), Stop::Ended(42));
}

#[test]
fn a_guest_sees_the_page_that_it_is_shown() {
    let Some(host) = host("a_guest_sees_the_page_that_it_is_shown") else { return };
    let load = [0x48, 0x8b, 0x03]; // mov rax, [rbx]
    let code = Code::default().rbx(PLACE << 12).port(port::DOORBELL);
    let code = (0..3).fold(code, |code, _| code.and(&load).out(4));
    let (mut vm, other) = (code.vm(&host), GuestMemory::new(1).unwrap());
    vm.memory().write_word(place(PLACE), 0, 1).unwrap();
    vm.memory().write_word(place(PLACE + 1), 0, 2).unwrap();
    other.write_word(place(0), 0, 3).unwrap();
    assert_eq!(vm.run(), Stop::Rang(1, 4));
    vm.memory().show(place(PLACE), vm.memory(), place(PLACE + 1)).unwrap();
    assert_eq!(vm.run(), Stop::Rang(2, 4), "another page of its own");
    vm.memory().show(place(PLACE), &other, place(0)).unwrap();
    assert_eq!(vm.run(), Stop::Rang(3, 4), "a page of somebody else's");
    assert!(vm.memory().show(place(PLACE), &other, place(1)).is_err(), "no such page");
}

#[test]
fn a_guest_that_has_no_place_is_refused() {
    let Some(host) = host("a_guest_that_has_no_place_is_refused") else { return };
    let refused = |image: &[u8], pages, words: &[u64]| {
        PlainVm::new(&host, &Guest { image, pages, words }).unwrap_err()
    };
    assert_eq!(refused(&[0xf4], PAGES - 1, &[]), PlainError::Pages(PAGES - 1));
    assert_eq!(refused(&[0xf4], abi::PAGES_MAX + 1, &[]), PlainError::Pages(abi::PAGES_MAX + 1));
    assert_eq!(refused(&[0xf4], PAGES, &[0; boot::WORDS_MAX + 1]), PlainError::Words(9));
    let most = (PAGES - gfn::IMAGE) as usize * 4096;
    assert!(matches!(refused(&vec![0xf4; most + 1], PAGES, &[]), PlainError::Memory(_)));
}

/// The program, which is ended if it does not end.
fn program(arguments: &[&str], folder: &Path, code: Code) -> Command {
    let image = folder.join("image");
    std::fs::write(&image, code.0).unwrap();
    let mut vmm = Command::new("timeout");
    vmm.args(["60", env!("CARGO_BIN_EXE_pageveil-vmm"), "--name", "x", "--pages", "64"]);
    vmm.args(arguments).arg("--door").arg(folder).arg(&image);
    vmm
}

#[test]
fn the_program_does_as_it_is_ordered() {
    if host("the_program_does_as_it_is_ordered").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Counts, and goes on when the doorbell answers something else than to what it rang with.
    let quiet = abi::answer(1) as u8;
    let wait = [0x48, 0xff, 0x03, 0xec, 0x3c, quiet, 0x74, 0xf8]; // inc [rbx]; in al, dx; cmp; je
    let code = Code::default().rbx(PLACE << 12).port(port::CONSOLE).rax(b'\n'.into()).out(1);
    let code = code.port(port::DOORBELL).rax(1).out(1).and(&wait).end(9);
    let mut vmm = program(&[], folder.path(), code);
    let mut vmm = vmm.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut orders = vmm.stdin.take().unwrap();
    let mut lines = BufReader::new(vmm.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut says = |wanted: &str| assert_eq!(lines.next().as_deref(), Some(wanted));
    says("[x] ");
    for order in ["look", "pause", "dump", "look", "wait", "dump", "resume", "wait", "dump", "ring"]
    {
        if order == "wait" {
            std::thread::sleep(Duration::from_millis(50)); // for the guest to run, if it can
            continue;
        }
        writeln!(orders, "{order}").unwrap();
        says(&format!("vmm x: did {order}"));
    }
    says("vmm x: ended with 9");
    assert_eq!(vmm.wait().unwrap().code(), Some(9));
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("x.registers").len(), 2 * door::RECORD, "two looks");
    let dumps = bytes("x.memory");
    let at = PLACE as usize * 4096;
    let counts: Vec<_> = dumps.chunks(64 << 12).map(|dump| &dump[at..at + 8]).collect();
    assert_eq!(counts.len(), 3);
    assert!(counts[0] == counts[1], "paused");
    assert!(counts[1] != counts[2], "resumed");
}

#[test]
fn a_watched_guest_is_written_down_at_each_stop() {
    if host("a_watched_guest_is_written_down_at_each_stop").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let code = Code::default().port(port::DOORBELL).out(1).out(1).take(1).end(0);
    let done = program(&["--watch"], folder.path(), code).stdin(Stdio::null()).output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    let records = std::fs::read(folder.path().join("x.registers")).unwrap();
    assert_eq!(records.len(), 4 * door::RECORD, "two rings, an answer, the end");
}

#[test]
fn the_program_says_how_it_is_used() {
    for wrong in [&["--pages", "many", "image"][..], &[], &["--no-such"], &["one", "two"]] {
        let done = Command::new(env!("CARGO_BIN_EXE_pageveil-vmm")).args(wrong).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&done.stderr).starts_with("usage: "), "{wrong:?}");
    }
    let done = Command::new(env!("CARGO_BIN_EXE_pageveil-vmm")).arg("/no/such").output().unwrap();
    assert_eq!(done.status.code(), Some(1));
}
