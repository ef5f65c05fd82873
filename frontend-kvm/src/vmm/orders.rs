//! Orders from standard input, for the thread that runs the guest.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use frontend_kvm::plain::kick;

/// What a guest's manager can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Write the registers down, wherever the guest is.
    Look,
    /// Write the memory down.
    Dump,
    /// Do not run it.
    Pause,
    /// Run it again.
    Resume,
    /// Let the doorbell answer something else.
    Ring,
}

impl Order {
    const ALL: [Self; 5] = [Self::Look, Self::Dump, Self::Pause, Self::Resume, Self::Ring];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Dump => "dump",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Ring => "ring",
        }
    }
}

/// Passes orders on until standard input ends, one at a time: the guest is taken out until the
/// thread has carried the order out.
pub(crate) fn pass_on<T>(orders: &Sender<Order>, done: &Receiver<()>, vcpu: &JoinHandle<T>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let Some(order) = Order::ALL.into_iter().find(|order| order.name() == line) else {
            eprintln!("pageveil-vmm: there is no order {line:?}");
            continue;
        };
        if orders.send(order).is_err() {
            return;
        }
        while done.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
            kick(vcpu);
        }
    }
}
