//! Every command of the tool as a person uses it, on a real guest: what it prints, what it writes,
//! and how it ends.

mod common;
mod tool;

use common::{PAGES, kvm, skip};
use frontend_kvm::abi::{gfn, mailbox};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, elf};
use serde_json::Value;
use tool::{Home, Trusted, bytes, is_well_formed, pageveil, program, read, until};

const COMMANDS: [&str; 12] = [
    "demo", "run", "restore", "keygen", "map", "peek", "view", "jail", "dump", "snapshot",
    "inspect", "verify",
];

#[test]
fn map_tells_what_every_page_is() {
    if kvm("map_tells_what_every_page_is").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let text = pageveil(&["map", &guest.sock]).fine().out;
    for words in
        ["epoch 1", "2048 pages", "2047  private", "1  open", "page 0x480 is open, readable"]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let svg = home.path("map.svg");
    let told = pageveil(&["map", &guest.sock, "--json", "--svg", &svg]).json();
    assert_eq!((&told["pages"], &told["epoch"]), (&PAGES.into(), &1.into()));
    assert_eq!((&told["runnable"], &told["doorbells_refused"]), (&true.into(), &0.into()));
    let states = told["states"].as_object().unwrap();
    assert_eq!(states.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), PAGES as u64);
    let picture = String::from_utf8(read(&svg)).unwrap();
    assert!(
        is_well_formed(&picture)
            && picture.contains(told["vm"].as_str().unwrap().get(..8).unwrap())
    );
    assert!(guest.end().fine().err.contains("every page of it wiped"));
}

#[test]
fn peek_shows_a_private_page_sealed_and_the_open_one_plain() {
    if kvm("peek_shows_a_private_page_sealed_and_the_open_one_plain").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let secret = guest.peek(gfn::SECRET);
    assert_eq!((&secret["gfn"], &secret["sealed"]), (&gfn::SECRET.into(), &true.into()));
    assert_eq!(bytes(secret["tag"].as_str().unwrap()).len(), 16);
    let again = guest.peek(gfn::SECRET);
    assert_ne!(secret["bytes"], again["bytes"], "no two seals of a page are alike");
    assert!(again["version"].as_u64() > secret["version"].as_u64());
    let open = guest.peek(gfn::MAILBOX);
    assert_eq!((&open["sealed"], &open["tag"]), (&false.into(), &Value::Null));
    let page = bytes(open["bytes"].as_str().unwrap());
    assert!(page.len() == 4096 && page.starts_with(&mailbox::GREETING));
    let text = pageveil(&["peek", &guest.sock, "1152"]).fine().out;
    assert!(text.starts_with("page 0x480: open, readable\n"), "{text}");
    assert!(text.contains("|Hello from the g|") && text.lines().count() == 257, "{text}");
    let text = pageveil(&["peek", &guest.sock, "0x500"]).fine().out;
    assert!(text.starts_with("page 0x500: private; sealed, version "), "{text}");
}

#[test]
fn view_shows_the_open_page_live_in_its_own_address_space() {
    if kvm("view_shows_the_open_page_live_in_its_own_address_space").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let told = pageveil(&["view", &guest.sock, "--json", "--seconds", "0.5"]).json();
    assert_eq!(told["pages"], Value::from(vec![gfn::MAILBOX]));
    let both = ["--page", "0x480", "--page", "0x500"];
    let ran = pageveil(&[&["view", &guest.sock, "--seconds", "0.2"], &both[..]].concat()).fine();
    assert!(ran.out.contains("page 0x480, live in this process's own address space"));
    assert!(
        ran.out.contains("|Hello from the g|") && ran.out.contains("page 0x500"),
        "{}",
        ran.out
    );
    // The private page was shown as a replica, and the guest did not notice.
    let states = pageveil(&["map", &guest.sock, "--json"]).json()["states"].clone();
    assert_eq!((&states["replica"], &states["open"]), (&1.into(), &1.into()));
    guest.runs_on();
}

/// Memory of the dump, as anybody's ELF reader has it.
fn loaded(core: &[u8]) -> &[u8] {
    let header = elf::FileHeader64::<Endianness>::parse(core).unwrap();
    let endian = header.endian().unwrap();
    assert_eq!(header.e_type(endian), elf::ET_CORE);
    let segments = header.program_headers(endian, core).unwrap();
    let load = segments.iter().find(|one| one.p_type(endian) == elf::PT_LOAD).unwrap();
    assert_eq!((load.p_vaddr(endian), load.p_memsz(endian)), (0, PAGES as u64 * 4096));
    let note = segments.iter().find_map(|one| one.notes(endian, core).unwrap()).unwrap();
    let mut note = note;
    let states = note.next().unwrap().unwrap();
    assert_eq!((states.name(), states.desc().len()), (&b"Pageveil"[..], PAGES));
    load.data(endian, core).unwrap()
}

#[test]
fn a_dump_is_a_core_file_that_readelf_gdb_and_a_library_open() {
    let name = "a_dump_is_a_core_file_that_readelf_gdb_and_a_library_open";
    if kvm(name).is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let core = home.path("core");
    let told = pageveil(&["dump", &guest.sock, &core, "--json"]).json();
    let count = |name: &str| told[name].as_u64().unwrap();
    assert_eq!((count("pages"), count("pages_open")), (PAGES as u64, 1));
    assert_eq!(count("pages_sealed"), PAGES as u64 - 1);
    let file = read(&core);
    ElfFile64::<Endianness>::parse(&*file).unwrap();
    let memory = loaded(&file);
    let page = |number: u64| &memory[number as usize * 4096..][..4096];
    assert!(page(gfn::MAILBOX).starts_with(&mailbox::GREETING));
    assert!(!memory.windows(8).any(|some| some == b"pageveil"), "the boot page is sealed");
    let readelf = program("readelf", &["-h", "-l", "-n", &core]);
    match readelf {
        Some(ran) => {
            let ran = ran.fine();
            assert!(ran.err.is_empty(), "{}", ran.err);
            assert!(ran.out.contains("CORE (Core file)") && ran.out.contains("Pageveil"));
        }
        None => skip(name, "no readelf here"),
    }
    match program("gdb", &["-nx", "-batch", "-core", &core, "-ex", "x/s 0x480000"]) {
        Some(ran) => assert!(ran.out.contains("\"Hello from the guest: this page"), "{ran:?}"),
        None => skip(name, "no gdb here"),
    }
    guest.runs_on();
}

/// A snapshot's root, and the counter just before it.
fn snapshot(guest: &Trusted, image: &str) -> (String, u64) {
    let before = guest.steps();
    let told = pageveil(&["snapshot", &guest.sock, image, "--json"]).json();
    assert_eq!(told["snapshot_bytes"], read(image).len());
    assert_eq!(told["pages"], PAGES);
    assert!(told["stall_ms"].as_f64().unwrap() > 0.0);
    (told["root"].as_str().unwrap().to_owned(), before)
}

#[test]
fn a_guest_goes_on_in_a_second_process_where_its_snapshot_was_taken() {
    let name = "a_guest_goes_on_in_a_second_process_where_its_snapshot_was_taken";
    if kvm(name).is_none() {
        return;
    }
    let home = Home::new();
    let (image, key) = (home.path("image"), home.path("key"));
    let guest = home.counter();
    until("the guest has counted far", || guest.steps() > 30_000_000);
    let (root, before) = snapshot(&guest, &image);
    let vm = pageveil(&["map", &guest.sock, "--json"]).json()["vm"].clone();
    let ended = guest.end().fine();
    assert!(ended.err.ends_with("the guest is gone, every page of it wiped\n"), "{ended:?}");
    assert!(pageveil(&["map", &home.path("guest.sock")]).code == Some(1));

    image_is_told(&image, &key, &root, &vm);
    let sock = home.path("second.sock");
    let arguments = ["restore", &image, "--root", &root, "--key-file", &key, "--control", &sock];
    let second = Trusted::start(&arguments, &sock).unwrap();
    let first = second.steps();
    assert!(first >= before, "it starts at {first}, and was at {before} before the snapshot");
    second.runs_on();
    let told = pageveil(&["map", &second.sock, "--json"]).json();
    assert_eq!((&told["vm"], &told["epoch"]), (&vm, &2.into()));
    assert_eq!(second.peek(gfn::SECRET)["sealed"], true);
    let (again, _) = snapshot(&second, &image);
    assert_ne!(again, root);
    assert!(second.end().fine().err.contains("every page of it wiped"));
}

/// What inspect says without a key, and verify with it.
fn image_is_told(image: &str, key: &str, root: &str, vm: &Value) {
    let claims = pageveil(&["inspect", image, "--json"]).json();
    assert_eq!((&claims["verified"], &claims["complete"]), (&false.into(), &true.into()));
    let facts = pageveil(&["verify", image, "--key-file", key, "--root", root, "--json"]).json();
    assert_eq!((&facts["verified"], &facts["root"]), (&true.into(), &root.into()));
    for (name, wanted) in [("vm", vm), ("epoch", &1.into()), ("pages", &PAGES.into())] {
        assert_eq!((&claims[name], &facts[name]), (wanted, wanted), "{name}");
    }
    let text = pageveil(&["inspect", image]).fine().out;
    assert!(text.contains("Nothing here is verified"), "{text}");
    let text = pageveil(&["verify", image, "--key-file", key]).fine().out;
    assert!(text.contains(root) && text.contains("genuine: every page"), "{text}");
}

#[test]
fn two_managers_at_once_get_what_one_gets() {
    if kvm("two_managers_at_once_get_what_one_gets").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let commands = [
        vec!["view".to_owned(), guest.sock.clone(), "--seconds".into(), "1".into()],
        vec!["dump".to_owned(), guest.sock.clone(), home.path("core")],
        vec!["snapshot".to_owned(), guest.sock.clone(), home.path("image")],
        vec!["map".to_owned(), guest.sock.clone()],
    ];
    let started: Vec<_> = commands.iter().map(|c| tool::Started::new(&mut tool::tool(c))).collect();
    for command in started {
        command.wait().fine();
    }
    assert!(loaded(&read(home.path("core")))[0x48_0000..].starts_with(&mailbox::GREETING));
    pageveil(&["verify", &home.path("image"), "--key-file", &home.path("key")]).fine();
    guest.runs_on();
}

#[test]
fn an_interrupt_ends_a_guest_as_a_term_does() {
    if kvm("an_interrupt_ends_a_guest_as_a_term_does").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    guest.process.signal("INT");
    let ran = guest.process.wait().fine();
    assert!(ran.err.contains("every page of it wiped"), "{ran:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_failure_to_cry_about() {
    let home = Home::new();
    let tool = env!("CARGO_BIN_EXE_pageveil");
    let svg = home.path("map.svg");
    let line = format!("'{tool}' demo --platform sim --svg '{svg}' | head -1");
    let ran = program("sh", &["-c", &line]).expect("a shell").fine();
    assert_eq!(ran.err, "", "{}", ran.out);
}

#[test]
fn every_command_and_every_option_says_what_it_is_for() {
    let all = pageveil(&["--help"]).fine().out;
    for command in COMMANDS {
        let says = |line: &str| line.starts_with(&format!("  {command} ")) && line.len() > 20;
        assert!(all.lines().any(says), "{command} is not told of: {all}");
        let help = pageveil(&[command, "--help"]).fine().out;
        let undescribed = undescribed(&help);
        assert!(undescribed.is_empty(), "{command}: {undescribed:?}");
        assert!(!help.starts_with("Usage"), "{command} does not say what it is for");
    }
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = commands.take_while(|line| !line.is_empty()).filter(|line| {
        line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  help ")
    });
    assert_eq!(listed.count(), COMMANDS.len(), "a command is missing here: {all}");
    assert!(all.contains("Exit status"), "{all}");
}

/// Arguments and options without words: neither on their line nor on the next.
fn undescribed(help: &str) -> Vec<String> {
    let lines: Vec<&str> = help.lines().collect();
    let bare = |(at, line): (usize, &&str)| {
        let spec = line.trim_start();
        let indent = line.len() - spec.len();
        let is_one = (2..=6).contains(&indent) && spec.starts_with(['-', '<', '[']);
        let same_line = spec.contains("  ");
        let next_line = lines.get(at + 1).is_some_and(|next| !next.trim().is_empty());
        (is_one && !same_line && !next_line).then(|| spec.to_owned())
    };
    lines.iter().enumerate().filter_map(bare).collect()
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() {
    let misused = |arguments: &[&str], words: &[&str]| pageveil(arguments).misused(words);
    misused(&[], &["Usage: pageveil <COMMAND>"]);
    misused(&["mpa"], &["unrecognized subcommand 'mpa'", "--help"]);
    misused(&["peek", "sock"], &["<GFN>"]);
    misused(&["peek", "sock", "twelve"], &["twelve is no page number: write 1152 or 0x480"]);
    misused(&["peek", "sock", "-1"], &["-1"]);
    let run = ["run", "counter", "--control", "sock", "--key-file", "key"];
    misused(&[&run[..], &["--mem", "lots"]].concat(), &["lots is no size: write 64M or 1G"]);
    misused(&[&run[..], &["--mem", "99999999999G"]].concat(), &["is no size"]);
    misused(&run[..4], &["--key-file <FILE>"]);
    misused(&["run", "windows"], &["windows", "counter, toggler, spin, bad"]);
    misused(&["verify", "image", "--key-file", "key", "--root", "abc"], &["--root"]);
    misused(&["jail"], &["<CMD>"]);
    misused(&["map", "sock", "--jsno"], &["--json"]);
}
