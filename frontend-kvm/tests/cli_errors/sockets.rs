//! Hostile managers: the conversation ends, the trusted process and everybody else go on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use frontend_kvm::abi::gfn;

use crate::Dice;
use crate::common::kvm;
use crate::tool::{Home, Trusted, pageveil, until};

/// The bytes of a frame, put together without the library that is under test.
pub(crate) fn frame(ask: u16, length: u64, a: u64, b: u64) -> Vec<u8> {
    let mut bytes = b"pgvl".to_vec();
    bytes.extend_from_slice(&ask.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    [length, a, b].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes
}

fn connect(guest: &Trusted) -> UnixStream {
    let socket = UnixStream::connect(&guest.sock).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// Whether the other side ends the conversation; what it says first does not count.
fn hangs_up(mut socket: &UnixStream) -> bool {
    let mut bytes = [0; 1 << 16];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            // Reset: it hung up before it had read everything.
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Says something and leaves it to the other side to hang up.
fn ends_a_conversation(guest: &Trusted, what: &[u8]) {
    let mut socket = connect(guest);
    // It may hang up before it has everything.
    let _ = socket.write_all(what);
    assert!(hangs_up(&socket), "it listens on after {:x?}", &what[..what.len().min(32)]);
}

#[test]
fn what_is_no_frame_ends_its_conversation_and_nothing_else() {
    if kvm("what_is_no_frame_ends_its_conversation_and_nothing_else").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let mut bystander =
        frontend_kvm::control::client::Client::connect(guest.sock.as_ref()).unwrap();
    let mut magic = frame(1, 0, 0, 0);
    magic[0] ^= 1;
    let mut status = frame(1, 0, 0, 0);
    status[6] = 2;
    ends_a_conversation(&guest, &magic);
    ends_a_conversation(&guest, &status);
    ends_a_conversation(&guest, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for ask in [0, 9, 255, u16::MAX] {
        ends_a_conversation(&guest, &frame(ask, 0, 0, 0));
    }
    for length in [u64::MAX, 1 << 63, 1 << 32, 64 * (4096 + 48) + 1] {
        ends_a_conversation(&guest, &frame(4, length, 0, 0));
    }
    let mut dice = Dice(0xbad);
    for _ in 0..100 {
        let length = 32 + dice.roll() as usize % 4096;
        ends_a_conversation(&guest, &dice.bytes(length));
    }
    assert_eq!(bystander.about().unwrap().pages, 2048, "others were not disturbed");
    guest.runs_on();
}

#[test]
fn frames_with_any_numbers_in_them_harm_nobody() {
    if kvm("frames_with_any_numbers_in_them_harm_nobody").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let mut dice = Dice(0xf00d);
    for _ in 0..300 {
        let mut socket = connect(&guest);
        // Every request but the one that ends the guest by right, and the long one.
        let ask = [1, 2, 3, 4, 5, 6][dice.roll() as usize % 6];
        let number = |dice: &mut Dice| match dice.roll() % 4 {
            0 => dice.roll(),
            1 => u64::MAX - dice.roll() % 4,
            _ => dice.roll() % 0x900,
        };
        let length = dice.roll() % 64;
        let mut bytes = frame(ask, length, number(&mut dice), number(&mut dice));
        bytes.extend(dice.bytes(length as usize));
        socket.write_all(&bytes).unwrap();
        let mut head = [0; 32];
        if socket.read_exact(&mut head).is_ok() {
            assert_eq!(&head[..4], b"pgvl", "an answer is a frame");
        }
    }
    assert_eq!(guest.peek(gfn::SECRET)["sealed"], true);
    guest.runs_on();
}

#[test]
fn half_frames_and_leaving_in_the_middle_hold_nobody_up() {
    if kvm("half_frames_and_leaving_in_the_middle_hold_nobody_up").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let whole = [frame(4, 100, gfn::MAILBOX, 0), vec![7; 100]].concat();
    let mut waiting = Vec::new();
    for cut in [0, 1, 4, 16, 31, 32, 33, 131] {
        let mut socket = connect(&guest);
        socket.write_all(&whole[..cut]).unwrap();
        waiting.push(socket);
    }
    // Asked for much, took nothing, left.
    for ask in [2, 3, 5, 7] {
        let mut socket = connect(&guest);
        socket.write_all(&frame(ask, 0, 0, 64)).unwrap();
    }
    guest.runs_on();
    pageveil(&["dump", &guest.sock, &home.path("core")]).fine();
    drop(waiting);
    until("an image can be had", || {
        pageveil(&["snapshot", &guest.sock, &home.path("image")]).code == Some(0)
    });
    guest.runs_on();
}

#[test]
fn more_conversations_than_there_is_room_for_are_turned_away() {
    if kvm("more_conversations_than_there_is_room_for_are_turned_away").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let mut idle: Vec<UnixStream> = (0..32).map(|_| connect(&guest)).collect();
    until("one more is turned away", || pageveil(&["map", &guest.sock]).code == Some(1));
    let ran = pageveil(&["map", &guest.sock]);
    ran.refused(&["the socket: "]);
    idle.truncate(16);
    until("there is room again", || pageveil(&["map", &guest.sock]).code == Some(0));
    guest.runs_on();
}
