//! Sealed images of running guests on a real KVM: one moment each, and nothing of an image that
//! is not what it was.

#[path = "../common/mod.rs"]
mod common;
mod consistent;
mod moment;
mod refused;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use common::until;
use frontend_kvm::abi::{self, gfn};
use frontend_kvm::guest::place;
use frontend_kvm::trusted::{Told, TrustedVm};
use frontend_kvm::{Kvm, Mode, Program};
use view_core::VmId;
use view_core::key::RootKey;

/// A guest in this process, started; stopped when dropped.
struct Running {
    vm: Arc<TrustedVm>,
    program: Program,
}

impl Running {
    fn boot(kvm: &Kvm, pages: usize, mode: Mode, change: impl FnOnce(&mut abi::Boot)) -> Self {
        let mut program = Program::new(mode, &common::ENTROPY);
        change(&mut program.boot);
        let vm = TrustedVm::boot(kvm, &key(), VmId([5; 16]), pages, &program).unwrap();
        vm.start().unwrap();
        let this = Self { vm: Arc::new(vm), program };
        until("the guest counts and shares", || {
            this.steps() > 10_000 && !this.vm.guard().open_pages().is_empty()
        });
        this
    }

    fn steps(&self) -> u64 {
        steps(&self.vm)
    }

    fn snapshot(&self) -> (Vec<u8>, Told) {
        let mut image = Vec::new();
        let told = self.vm.snapshot(&mut image).unwrap();
        (image, told)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.vm.machine().stop();
    }
}

fn key() -> RootKey {
    RootKey::new([9; 32])
}

fn steps(vm: &TrustedVm) -> u64 {
    vm.machine().memory().read_word(place(gfn::COUNTER_B), 0).unwrap()
}

/// An image where files are: unnamed, gone with its descriptor.
fn file(image: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    file
}
