//! Guests under the plain VMM, each in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::Result;

/// Where the VMMs write down what they see.
pub(crate) const DOOR: &str = "/door";

/// How long a guest may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// A VMM with its guest.
pub(crate) struct Running {
    pub(crate) name: &'static str,
    child: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
}

impl Running {
    /// Starts one. Whatever it says is passed on. `watch`: its registers are written down at each
    /// exit.
    pub(crate) fn start(name: &'static str, words: &[u64], watch: bool) -> Result<Self> {
        let mut vmm = Command::new("/pageveil-vmm");
        vmm.args(["--name", name, "--pages", "256", "--door", DOOR]);
        if watch {
            vmm.arg("--watch");
        }
        for word in words {
            vmm.arg("--word").arg(word.to_string());
        }
        vmm.arg("/guest.elf").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = vmm.spawn()?;
        let (orders, said) = (child.stdin.take(), child.stdout.take());
        let (Some(orders), Some(said)) = (orders, said) else { return Err("no pipes".into()) };
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(std::result::Result::ok) {
                println!("{line}");
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, child, orders, lines })
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says this at the end of a line.
    pub(crate) fn expect(&self, end: &str) -> Result<()> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.ends_with(end) => return Ok(()),
                Ok(_) => {}
                Err(why) => {
                    return Err(format!("guest {} never said {end:?}: {why}", self.name).into());
                }
            }
        }
    }

    /// Gives an order, and waits until it is carried out.
    pub(crate) fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}")?;
        self.expect(&format!("did {order}"))
    }

    /// Waits for its end, and says how that was.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.orders);
        let status = self.child.wait()?;
        println!("stage: guest {} ended with {:?}", self.name, status.code());
        Ok(())
    }
}
