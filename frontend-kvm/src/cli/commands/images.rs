//! Commands about sealed images and key files.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use clap::Args;
use frontend_kvm::harden::TRUSTED_USER;
use frontend_kvm::trusted::{random, verify};
use serde_json::json;
use view_core::image::{HEADER_SIZE, Header, ImageRoot, UnverifiedHeader};
use zeroize::Zeroizing;

use super::parse_root;
use crate::output::{Failed, Outcome, bar, hex, print_json, say};

/// Makes a key file.
pub(crate) fn keygen(path: &Path) -> Outcome {
    let failed = Failed::while_doing(path.display());
    let key = Zeroizing::new(random::<32>()?);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| failed(&error))?;
    file.write_all(&*key).map_err(|error| failed(&error))?;
    let mut readers = "you alone".to_owned();
    if file.metadata()?.uid() == 0 {
        // Root's own files are open to a tool that runs as root in the jail.
        fchown(&file, Some(TRUSTED_USER), Some(TRUSTED_USER)).map_err(|error| failed(&error))?;
        readers = format!("the trusted user {TRUSTED_USER} and by root outside the jail");
    }
    file.sync_all().map_err(|error| failed(&error))?;
    say!("{}: 32 random bytes, readable by {readers}", path.display())
}

/// Show what an image says of itself.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The image
    file: PathBuf,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> Outcome {
        let failed = Failed::while_doing(self.file.display());
        let mut file = File::open(&self.file).map_err(|error| failed(&error))?;
        let length = file.metadata()?.len();
        let mut block = Vec::new();
        let take = Read::by_ref(&mut file).take(HEADER_SIZE as u64).read_to_end(&mut block);
        take.map_err(|error| failed(&error))?;
        let header = UnverifiedHeader::parse(&block).map_err(|error| failed(&error))?.claims;
        let geometry = header.geometry().map_err(|error| failed(&error))?;
        let complete = geometry.check(length);
        if self.json {
            let mut told = header_json(&header);
            told["verified"] = json!(false);
            told["complete"] = json!(complete.is_ok());
            return print_json(&told);
        }
        print_header(&header)?;
        match complete {
            Ok(()) => say!("length     {length} bytes, as it should be")?,
            Err(error) => say!("length     {error}")?,
        }
        say!("Nothing here is verified: anybody could have written it. Use `pageveil verify`.")
    }
}

/// Verify a whole image under its owner's key.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The image
    file: PathBuf,
    /// The owner's key: 32 bytes, readable by its owner alone
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Accept only the image with this root
    #[arg(long, value_name = "HEX", value_parser = parse_root)]
    root: Option<ImageRoot>,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(crate) fn run(self) -> Outcome {
        let failed = Failed::while_doing(self.file.display());
        let key = super::run::key_file(&self.key_file, None)?;
        let file = File::open(&self.file).map_err(|error| failed(&error))?;
        let length = file.metadata()?.len();
        let progress = bar(length / view_core::PAGE_SIZE as u64, "verifying");
        let verified = verify(&key, &file, self.root, |_| progress.inc(1));
        progress.finish_and_clear();
        let verified = verified.map_err(|error| failed(&error))?;
        if self.json {
            let mut told = header_json(&verified.header);
            told["verified"] = json!(true);
            told["root"] = json!(verified.root.to_string());
            return print_json(&told);
        }
        print_header(&verified.header)?;
        say!("root       {}", verified.root)?;
        say!("genuine: every page, the state, the records and the trailer")
    }
}

fn header_json(header: &Header) -> serde_json::Value {
    json!({
        "vm": hex(&header.vm.0), "epoch": header.epoch.0, "salt": hex(&header.salt.0),
        "suite": header.suite.0, "sequence": header.sequence, "pages": header.pages,
        "state_bytes": header.state_len,
    })
}

fn print_header(header: &Header) -> Outcome {
    say!("vm         {}", hex(&header.vm.0))?;
    say!("epoch      {}", header.epoch.0)?;
    say!("sequence   {}", header.sequence)?;
    say!("suite      {} (SIV-CMAC-512)", header.suite.0)?;
    say!("pages      {}", header.pages)?;
    say!("state      {} bytes", header.state_len)
}
