//! `pageveil-vmm`: the plain VMM for guests that a monitor beneath it protects.
//!
//! It runs one guest and ends with the guest's exit code. Lines on its standard input are orders:
//! `look` (write registers down), `dump` (write memory down), `pause`, `resume`, `ring`. Each is
//! answered by a line of its own once it is carried out.

mod orders;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender};

use frontend_kvm::plain::{Guest, Host, PlainVm, Stop, allow_kicks, door};
use orders::Order;

/// What this program is told.
#[derive(Debug)]
struct Told {
    name: String,
    pages: u64,
    words: Vec<u64>,
    door: Option<PathBuf>,
    watch: bool,
    image: PathBuf,
}

const USAGE: &str =
    "usage: pageveil-vmm [--name NAME] [--pages N] [--word N]... [--door FOLDER] [--watch] IMAGE

Runs IMAGE (static ELF, or flat) in a VM with N pages of memory (256), in ring 0 of 64-bit mode.
--word N     one more word for the guest's boot page
--door FOLDER  write registers and memory down in there, when told to
--watch      at each exit, write down all that KVM shows of the guest's registers";

/// Exit code of a guest that did not end by itself; guests' own are below.
const DIED: u8 = 101;

fn main() -> ExitCode {
    let Some(told) = told(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match start(told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pageveil-vmm: {why}");
            ExitCode::FAILURE
        }
    }
}

fn told(mut arguments: impl Iterator<Item = String>) -> Option<Told> {
    let (name, image) = ("guest".to_owned(), PathBuf::new());
    let mut told = Told { name, pages: 256, words: vec![], door: None, watch: false, image };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--name" => told.name = arguments.next()?,
            "--pages" => told.pages = number(&arguments.next()?)?,
            "--word" => told.words.push(number(&arguments.next()?)?),
            "--watch" => told.watch = true,
            "--door" => told.door = Some(arguments.next()?.into()),
            image if !image.starts_with('-') && told.image.as_os_str().is_empty() => {
                told.image = image.into();
            }
            _ => return None,
        }
    }
    (!told.image.as_os_str().is_empty()).then_some(told)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Makes the VM, runs it on a thread of its own, and passes orders on.
fn start(told: Told) -> Result<(), Box<dyn std::error::Error>> {
    allow_kicks()?;
    let image = std::fs::read(&told.image)?;
    let guest = Guest { image: &image, pages: told.pages, words: &told.words };
    let vm = PlainVm::new(&Host::open()?, &guest)?;
    let (orders, ordered) = std::sync::mpsc::channel();
    let (done, carried_out) = std::sync::mpsc::channel();
    let mut run = Run { vm, told, line: vec![], mailboxes: 0 };
    let thread = std::thread::Builder::new().name("vcpu".into()).spawn(move || {
        let code = run.run_out(&ordered, &done).unwrap_or_else(|why| {
            eprintln!("pageveil-vmm: {why}");
            DIED
        });
        std::process::exit(code.into());
    })?;
    orders::pass_on(&orders, &carried_out, &thread);
    // Nobody gives orders any more; the guest ends by itself.
    let _ = thread.join();
    Ok(())
}

/// A guest that runs.
struct Run {
    vm: PlainVm,
    told: Told,
    line: Vec<u8>,
    mailboxes: u32,
}

impl Run {
    /// Until it ends, with its exit code, or with [`DIED`].
    fn run_out(&mut self, orders: &Receiver<Order>, done: &Sender<()>) -> io::Result<u8> {
        loop {
            self.carry_out(orders, done)?;
            let stop = self.vm.run();
            if self.told.watch && !matches!(stop, Stop::Console(_)) {
                self.look()?;
            }
            match stop {
                Stop::Console(byte) => self.console(byte)?,
                Stop::Mailbox(gfn) => self.mailbox(gfn)?,
                Stop::Ended(code) => {
                    self.say(&format!("ended with {code}"))?;
                    return Ok(code);
                }
                Stop::Nobody(place) => {
                    self.say(&format!("died: nobody answers at {place:#x}"))?;
                    return Ok(DIED);
                }
                Stop::Dead(why) => {
                    self.say(&format!("died: {why}"))?;
                    return Ok(DIED);
                }
                Stop::Rang(..) | Stop::Device | Stop::Signal => {}
            }
        }
    }

    /// Carries out every order that is there, and waits for more while paused.
    fn carry_out(&mut self, orders: &Receiver<Order>, done: &Sender<()>) -> io::Result<()> {
        let mut paused = false;
        loop {
            let order = match orders.try_recv() {
                Ok(order) => order,
                Err(_) if !paused => return Ok(()),
                Err(_) => match orders.recv() {
                    Ok(order) => order,
                    Err(_) => return Ok(()), // nobody could resume it any more
                },
            };
            match order {
                Order::Look => self.look()?,
                Order::Dump => self.dump()?,
                Order::Ring => self.vm.ring(u64::MAX),
                Order::Pause => paused = true,
                Order::Resume => paused = false,
            }
            self.say(&format!("did {}", order.name()))?;
            // Who gave the order may be gone.
            let _ = done.send(());
        }
    }

    fn console(&mut self, byte: u8) -> io::Result<()> {
        if byte != b'\n' {
            self.line.push(byte);
            return Ok(());
        }
        let line = std::mem::take(&mut self.line);
        let mut out = io::stdout().lock();
        writeln!(out, "[{}] {}", self.told.name, String::from_utf8_lossy(&line))
    }

    /// A line of the VMM's own.
    fn say(&self, what: &str) -> io::Result<()> {
        writeln!(io::stdout().lock(), "vmm {}: {what}", self.told.name)
    }

    /// A file behind the door, to write at its end.
    fn file(&self, what: &str) -> io::Result<Option<File>> {
        let Some(folder) = &self.told.door else { return Ok(None) };
        let path = folder.join(format!("{}.{what}", self.told.name));
        File::options().create(true).append(true).open(path).map(Some)
    }

    fn look(&self) -> io::Result<()> {
        match self.file("registers")? {
            Some(mut file) => door::registers(&self.vm, &mut file),
            None => Ok(()),
        }
    }

    fn dump(&self) -> io::Result<()> {
        match self.file("memory")? {
            Some(file) => {
                let mut file = io::BufWriter::new(file);
                door::memory(&self.vm, &mut file)?;
                file.flush()
            }
            None => Ok(()),
        }
    }

    /// Answers a mailbox, and keeps what it looked like before.
    fn mailbox(&mut self, gfn: view_core::Gfn) -> io::Result<()> {
        self.mailboxes += 1;
        if let Some(mut file) = self.file(&format!("mailbox-{}", self.mailboxes))? {
            door::page(&self.vm, gfn, &mut file)?;
        }
        let word = self.vm.memory().read_word(gfn, 0).map_err(io::Error::other)?;
        let greeted = self.vm.reply(gfn).map_err(io::Error::other)?;
        let what = if greeted { "a greeting" } else { "no greeting" };
        self.say(&format!("mailbox: {what}, it begins with {word:#018x}"))
    }
}
