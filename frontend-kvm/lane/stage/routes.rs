//! Every route by which Linux lets somebody look for what a guest keeps.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::Result;
use crate::find::{Class, Finder, Seen};
use crate::guests::{DOOR, Running};

/// How much is looked at in one go.
const CHUNK: usize = 256 << 10;

/// Says what a route showed of each guest's secrets.
pub(crate) fn report(route: &str, names: &[&str], finder: &Finder, seen: &Seen) {
    for (guest, name) in names.iter().enumerate() {
        for class in Class::ALL {
            let kind = (guest, class);
            let (words, bytes, class) = (finder.words(kind), seen.bytes, class.name());
            let hits = seen.hits.get(&kind).copied().unwrap_or(0);
            println!(
                "scan route={route} guest={name} class={class} words={words} bytes={bytes} \
                 hits={hits}"
            );
        }
    }
}

/// What the VMMs wrote down, by the end of the files' names.
pub(crate) fn door(finder: &Finder, end: &str) -> Result<Seen> {
    let mut seen = Seen::default();
    for entry in std::fs::read_dir(DOOR)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            finder.look_everywhere(&std::fs::read(path)?, &mut seen);
        }
    }
    Ok(seen)
}

/// All memory of a guest's VMM, as others may read it.
pub(crate) fn process(finder: &Finder, guest: &Running, seen: &mut Seen) -> Result<()> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", guest.process()))?;
    let memory = File::open(format!("/proc/{}/mem", guest.process()))?;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        if rights.starts_with('r') {
            look_at(finder, &memory, (start, end), seen);
        }
    }
    Ok(())
}

/// A segment of `/proc/kcore`: where it is in the file, and how long.
struct Segment {
    offset: u64,
    size: u64,
}

/// All memory that the kernel has, as it maps it for itself.
pub(crate) fn physical(finder: &Finder) -> Result<Seen> {
    let mut seen = Seen::default();
    let core = File::open("/proc/kcore")?;
    for segment in segments(&core)? {
        let end = segment.offset + segment.size;
        look_at(finder, &core, (segment.offset, end), &mut seen);
    }
    Ok(seen)
}

/// The segments that are memory, by the ELF headers of the file.
fn segments(core: &File) -> Result<Vec<Segment>> {
    /// Where the kernel's own text is mapped a second time.
    const TEXT: u64 = 0xffff_ffff_8000_0000;
    let mut head = [0; 64];
    core.read_exact_at(&mut head, 0)?;
    let count = usize::from(u16::from_le_bytes([head[56], head[57]]));
    let mut headers = vec![0; count * 56];
    core.read_exact_at(&mut headers, 64)?;
    let mut found = vec![];
    for header in headers.as_chunks::<56>().0 {
        let (words, _) = header.as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        // What is no memory has no physical address.
        let is_memory = word(0) as u32 == 1 && word(3) != u64::MAX && word(2) < TEXT;
        if is_memory {
            found.push(Segment { offset: word(1), size: word(4) });
        }
    }
    if found.is_empty() { Err("the kernel shows no memory".into()) } else { Ok(found) }
}

/// Looks at a part of a file as far as it can be read.
fn look_at(finder: &Finder, file: &File, (start, end): (u64, u64), seen: &mut Seen) {
    let mut buffer = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        let most = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
        match file.read_at(&mut buffer[..most], at) {
            Ok(read @ 1..) => {
                finder.look_at_words(&buffer[..read], seen);
                at += read as u64;
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            // What can't be read is passed by.
            Ok(_) | Err(_) => at += 4096,
        }
    }
    // So that the next route does not find what this one saw.
    std::hint::black_box(&mut buffer).fill(0);
}
