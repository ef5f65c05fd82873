//! Management tools: what can be had over the control socket, and nothing else.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use frontend_kvm::control::client::{Client, SeenPage};
use frontend_kvm::control::wire::{PAGES_MAX, WireError, state_code};
use object::elf;
use object::write::elf::{FileHeader, ProgramHeader, Writer};
use serde_json::json;
use view_core::image::{HEADER_SIZE, ImageError, ImageRoot, UnverifiedHeader};
use view_core::{PAGE_SIZE, PageState, Perm};

use super::parse_number;
use crate::output::{Failed, Outcome, WholeFile, bar, hex, hex_line, print_json, say};
use crate::picture;

/// Which guest.
#[derive(Debug, Args)]
struct Socket {
    /// Control socket of the trusted process
    #[arg(value_name = "SOCK")]
    socket: PathBuf,
}

impl Socket {
    fn connect(&self) -> Result<Client, Failed> {
        Client::connect(&self.socket).map_err(|error| {
            let name = self.socket.display();
            Failed::new(format!("{name}: {error}; is `pageveil run --control {name}` running?"))
        })
    }
}

/// Show which page is what.
#[derive(Debug, Args)]
pub(crate) struct Map {
    #[command(flatten)]
    socket: Socket,
    /// Draw it into this file too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

impl Map {
    pub(crate) fn run(self) -> Outcome {
        let mut client = self.socket.connect()?;
        let about = client.about()?;
        let states = client.states()?;
        let counts = picture::counts(&states);
        if let Some(path) = &self.svg {
            let title = format!("Guest {}, epoch {}", hex(&about.vm.0[..4]), about.epoch);
            let mut file = WholeFile::create(path)?;
            file.write_all(picture::page_map(&states, &title).as_bytes())?;
            file.finish()?;
        }
        if self.json {
            let counts: serde_json::Map<_, _> =
                counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
            return print_json(&json!({
                "vm": hex(&about.vm.0), "epoch": about.epoch, "pages": about.pages,
                "runnable": about.runnable, "rekey_due": about.rekey_due,
                "doorbells_refused": about.refused, "states": counts,
            }));
        }
        say!("guest {}  epoch {}  {} pages", hex(&about.vm.0), about.epoch, about.pages)?;
        for (name, count) in counts {
            say!("{count:>9}  {name}")?;
        }
        for (gfn, state) in states.iter().enumerate() {
            if let PageState::Open { perm, .. } = state {
                let perm = if *perm == Perm::Read { "readable" } else { "readable and writable" };
                say!("           page {gfn:#x} is open, {perm}")?;
            }
        }
        Ok(())
    }
}

/// Show what management gets to see of one page.
#[derive(Debug, Args)]
pub(crate) struct Peek {
    #[command(flatten)]
    socket: Socket,
    /// Which page: guest frame number, 1152 or 0x480
    #[arg(value_parser = parse_number)]
    gfn: u64,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

impl Peek {
    pub(crate) fn run(self) -> Outcome {
        let mut client = self.socket.connect()?;
        let pages = client.read(self.gfn, 1)?;
        let page = pages.first().ok_or(Failed::new("no page came back"))?;
        if self.json {
            return print_json(&json!({
                "gfn": page.gfn, "state": describe(page), "sealed": page.sealed.is_some(),
                "version": page.sealed.map(|(version, _)| version),
                "tag": page.sealed.map(|(_, tag)| hex(&tag)),
                "bytes": hex(page.bytes.bytes()),
            }));
        }
        say!("page {:#x}: {}", page.gfn, describe(page))?;
        for (index, bytes) in page.bytes.bytes().chunks(16).enumerate() {
            say!("{}", hex_line(index * 16, bytes))?;
        }
        Ok(())
    }
}

fn describe(page: &SeenPage) -> String {
    match (page.state, page.sealed) {
        (PageState::Open { perm: Perm::Read, .. }, _) => "open, readable".into(),
        (PageState::Open { perm: Perm::ReadWrite, .. }, _) => "open, readable and writable".into(),
        (_, Some((version, tag))) => {
            format!("private; sealed, version {version}, tag {}", hex(&tag))
        }
        (state, None) => format!("{state:?}"),
    }
}

/// Bytes of a page that a view shows.
const SHOWN: usize = 96;

/// Map the whole view and watch it live.
#[derive(Debug, Args)]
pub(crate) struct ViewArgs {
    #[command(flatten)]
    socket: Socket,
    /// Look only at these pages
    #[arg(long, value_name = "GFN", value_parser = parse_number)]
    page: Vec<u64>,
    /// How long to watch, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

impl ViewArgs {
    pub(crate) fn run(self) -> Outcome {
        let mut client = self.socket.connect()?;
        let states = client.states()?;
        let view = self.socket.connect()?.view()?;
        let open = states.iter().zip(0..).filter(|(state, _)| state.terms().is_some());
        let mut pages: Vec<u64> = self.page.clone();
        if pages.is_empty() {
            pages = open.map(|(_, gfn)| gfn).collect();
        }
        let until = Instant::now() + Duration::try_from_secs_f64(self.seconds).unwrap_or_default();
        let mut page = view_core::Page::zeroed();
        let mut changes = 0_u64;
        let mut last = Vec::new();
        loop {
            let mut now = Vec::new();
            for gfn in &pages {
                let index = usize::try_from(*gfn).unwrap_or(usize::MAX);
                let none = || Failed::new(format!("the guest has no page {gfn:#x}"));
                view.mapping().read(index, &mut page).ok_or_else(none)?;
                now.push(page.bytes()[..SHOWN].to_vec());
            }
            if now != last {
                changes += 1;
                last = now;
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.json {
            return print_json(&json!({ "pages": pages, "changes_seen": changes }));
        }
        for (gfn, bytes) in pages.iter().zip(&last) {
            say!("page {gfn:#x}, live in this process's own address space:")?;
            for (index, bytes) in bytes.chunks(16).enumerate() {
                say!("  {}", hex_line(index * 16, bytes))?;
            }
        }
        say!("{changes} changes seen in {} s", self.seconds)
    }
}

/// Write the management side's view as an ELF core file.
#[derive(Debug, Args)]
pub(crate) struct Dump {
    #[command(flatten)]
    socket: Socket,
    /// Where to write it
    file: PathBuf,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

impl Dump {
    pub(crate) fn run(self) -> Outcome {
        let mut client = self.socket.connect()?;
        let states = client.states()?;
        let mut out = WholeFile::create(&self.file)?;
        let sealed = core_file(&mut out, &mut client, &states).map_err(|error| {
            let untouched = "what was there before is untouched";
            Failed::new(format!("{}: no dump: {error}; {untouched}", self.file.display()))
        })?;
        out.finish()?;
        let (pages, open) = (states.len(), states.iter().filter(|s| s.terms().is_some()).count());
        if self.json {
            let numbers = json!({ "pages": pages, "pages_sealed": sealed, "pages_open": open });
            return print_json(&numbers);
        }
        let name = self.file.display();
        say!("{name}: {pages} pages, {sealed} of them sealed, {open} open")
    }
}

/// An ELF core of one segment from guest address 0, and a note with every page's state.
fn core_file(
    out: &mut WholeFile,
    client: &mut Client,
    states: &[PageState],
) -> Result<u64, WireError> {
    let pages = states.len() as u64;
    let codes: Vec<u8> = states.iter().map(|state| state_code(*state)).collect();
    let head = core_head(&note(&codes), pages * PAGE_SIZE as u64);
    let head = head.map_err(|error| WireError::Sink(std::io::Error::other(error)))?;
    out.write_all(&head).map_err(WireError::Sink)?;
    let progress = bar(pages, "dumping");
    let mut sealed = 0;
    for first in (0..pages).step_by(usize::try_from(PAGES_MAX).unwrap_or(1)) {
        for page in client.read(first, PAGES_MAX.min(pages - first))? {
            sealed += u64::from(page.sealed.is_some());
            out.write_all(page.bytes.bytes()).map_err(WireError::Sink)?;
        }
        progress.set_position(first);
    }
    progress.finish_and_clear();
    Ok(sealed)
}

/// What stands in front of the memory in a core file: headers and the note.
fn core_head(note: &[u8], bytes: u64) -> Result<Vec<u8>, object::write::Error> {
    let mut head = Vec::new();
    let mut writer = Writer::new(object::Endianness::Little, true, &mut head);
    writer.reserve_file_header();
    writer.reserve_program_headers(2);
    let (length, page) = (note.len() as u64, PAGE_SIZE as u64);
    let note_at = writer.reserve(length, 4);
    let load_at = writer.reserve(bytes, page);
    writer.write_file_header(&FileHeader {
        os_abi: elf::OsAbi(0),
        abi_version: 0,
        e_type: elf::ET_CORE,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    })?;
    writer.write_align_program_headers();
    let segment = |p_type, p_offset, length, p_align, p_flags| ProgramHeader {
        p_type,
        p_flags,
        p_offset,
        p_vaddr: 0,
        p_paddr: 0,
        p_filesz: length,
        p_memsz: if p_type == elf::PT_LOAD { length } else { 0 },
        p_align,
    };
    let no_rights = elf::ProgramFlags(0);
    writer.write_program_header(&segment(elf::PT_NOTE, note_at, length, 4, no_rights));
    writer.write_program_header(&segment(elf::PT_LOAD, load_at, bytes, page, elf::PF_R));
    writer.write_align(4);
    writer.write(note);
    writer.write_align(page);
    Ok(head)
}

/// A note named "Pageveil", of a type of our own: one state byte a page.
fn note(codes: &[u8]) -> Vec<u8> {
    /// "PVST", far from the numbers that readers of core files know.
    const PAGE_STATES: u32 = u32::from_be_bytes(*b"PVST");
    const NAME: &[u8; 12] = b"Pageveil\0\0\0\0";
    let words = [9_u32, u32::try_from(codes.len()).unwrap_or(0), PAGE_STATES];
    let mut note: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    note.extend_from_slice(NAME);
    note.extend_from_slice(codes);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// Write a sealed image of the running guest.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    socket: Socket,
    /// Where to write it; an old file stays until the new one is whole
    file: PathBuf,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

impl Snapshot {
    pub(crate) fn run(self) -> Outcome {
        let mut client = self.socket.connect()?;
        let pages = client.about()?.pages;
        let mut out = Tail::new(WholeFile::create(&self.file)?);
        let progress = bar(pages, "sealing");
        let name = self.file.display();
        let told = |bytes| progress.set_position(bytes / PAGE_SIZE as u64);
        let taken = client.snapshot(&mut out, told).map_err(|error| {
            let guest = if gone(&error) { "" } else { ", the guest runs on" };
            let untouched = "what was there before is untouched";
            Failed::new(format!("{name}: no image: {error}; {untouched}{guest}"))
        });
        progress.finish_and_clear();
        let taken = taken?;
        let whole = out.is_whole(taken.bytes);
        whole.map_err(|error| Failed::new(format!("{name}: what came is no image: {error}")))?;
        let root = ImageRoot(out.last);
        out.file.finish()?;
        let stall = taken.stall.as_secs_f64() * 1e3;
        if self.json {
            return print_json(&json!({
                "snapshot_bytes": taken.bytes, "pages": taken.pages, "stall_ms": stall,
                "root": root.to_string(),
            }));
        }
        say!(
            "{name}: {} pages, {} bytes; the guest stood still {stall:.1} ms",
            taken.pages,
            taken.bytes
        )?;
        say!("root {root}")?;
        say!("Keep the root where the image's keeper can't change it: restore --root pins it.")
    }
}

/// Whether the conversation is over, and what became of the guest is not known.
const fn gone(error: &WireError) -> bool {
    match error {
        WireError::Sink(_) | WireError::Refused(_) => false,
        WireError::Io(_) | WireError::NotAFrame | WireError::Unknown(_) | WireError::TooLong(_) => {
            true
        }
    }
}

/// Remembers the first page that went by and the last 16 bytes: an image begins with its header
/// and ends in its root.
struct Tail {
    file: WholeFile,
    first: Vec<u8>,
    last: [u8; 16],
}

impl Tail {
    const fn new(file: WholeFile) -> Self {
        Self { file, first: Vec::new(), last: [0; 16] }
    }

    /// Whether so many bytes can be the image that its header tells of.
    fn is_whole(&self, bytes: u64) -> Result<(), ImageError> {
        UnverifiedHeader::parse(&self.first)?.claims.geometry()?.check(bytes)
    }
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        let room = HEADER_SIZE.saturating_sub(self.first.len());
        self.first.extend(bytes.iter().take(written.min(room)));
        for byte in bytes.iter().take(written).skip(written.saturating_sub(16)) {
            self.last.rotate_left(1);
            self.last[15] = *byte;
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
