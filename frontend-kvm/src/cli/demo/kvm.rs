//! The demo on a real KVM guest: management is a client on a socket, as it is everywhere.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use frontend_kvm::control::client::{Client, SeenPage};
use frontend_kvm::control::server::Server;
use frontend_kvm::guest::place;
use frontend_kvm::trusted::{TrustedVm, random, verify};
use frontend_kvm::{Kvm, Mode, Program};
use view_core::image::ImageRoot;
use view_core::key::RootKey;
use view_core::{Page, PageState, VmId};
use zeroize::Zeroizing;

use super::{Opened, Stage, Taken, contains};
use crate::output::Failed;

/// A guest that counts, keeps a secret and shares its mailbox.
pub(super) fn stage(pages: usize) -> Result<Box<dyn Stage>, Failed> {
    let key = RootKey::new(random()?);
    let entropy = Zeroizing::new(random::<32>()?);
    let program = Program::new(Mode::Counter, &entropy);
    let secret = program.secret(0).bytes()[..32].to_vec();
    let vm = TrustedVm::boot(&Kvm::open()?, &key, VmId(random()?), pages, &program)?;
    Ok(Box::new(KvmStage::run(vm, key, secret)?))
}

struct KvmStage {
    vm: Arc<TrustedVm>,
    server: Arc<Server>,
    client: Client,
    key: RootKey,
    secret: Vec<u8>,
}

impl KvmStage {
    fn run(vm: TrustedVm, key: RootKey, secret: Vec<u8>) -> Result<Self, Failed> {
        let vm = Arc::new(vm);
        vm.start()?;
        let me = std::fs::metadata("/proc/self")?.uid();
        let server = Server::new(Arc::clone(&vm), vec![me])?;
        let (ours, theirs) = UnixStream::pair()?;
        server.welcome(theirs);
        Ok(Self { vm, server, client: Client::over(ours), key, secret })
    }
}

impl Stage for KvmStage {
    fn guest_page(&mut self, gfn: u64) -> Result<Page, Failed> {
        let mut page = Page::zeroed();
        self.vm.guard().shared().views.read_guest(place(gfn), &mut page)?;
        Ok(page)
    }

    fn look(&mut self, first: u64, count: u64) -> Result<Vec<SeenPage>, Failed> {
        Ok(self.client.read(first, count)?)
    }

    fn states(&mut self) -> Result<Vec<PageState>, Failed> {
        Ok(self.client.states()?)
    }

    fn snapshot(&mut self) -> Result<Taken, Failed> {
        let mut bytes = Vec::new();
        let taken = self.client.snapshot(&mut bytes, |_| {})?;
        Ok(Taken { bytes, stall: taken.stall })
    }

    fn open(&self, image: &[u8], needle: &[u8]) -> Result<Opened, Failed> {
        let mut pages_with_secret = 0;
        let count = |page: &Page| pages_with_secret += u64::from(contains(page.bytes(), needle));
        let root = verify(&self.key, &file(image)?, None, count)?.root;
        Ok(Opened { root, pages_with_secret })
    }

    fn restore(&self, image: &[u8], pinned: ImageRoot) -> Result<Box<dyn Stage>, Failed> {
        let vm = TrustedVm::restore(&Kvm::open()?, &self.key, &file(image)?, Some(pinned))?;
        Ok(Box::new(Self::run(vm, self.key.clone(), self.secret.clone())?))
    }

    fn secret(&self) -> Vec<u8> {
        self.secret.clone()
    }

    fn wait(&mut self) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for KvmStage {
    fn drop(&mut self) {
        self.server.stop();
        // The process ends soon; a page that can't be wiped goes with it.
        let _ = self.vm.destroy();
    }
}

/// An image where files are: unnamed, gone with the demo.
fn file(image: &[u8]) -> Result<File, Failed> {
    let mut file = tempfile::tempfile()?;
    file.write_all(image)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
