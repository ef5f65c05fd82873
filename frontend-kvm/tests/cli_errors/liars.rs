//! A hostile trusted process, or something else at its socket: the tool ends with an error, loses
//! no file, and waits for nobody for ever.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use crate::Dice;
use crate::sockets::frame;
use crate::tool::{Home, Ran, pageveil, read};

const OLD: &[u8] = b"the old file";

/// What a liar answers to a request, by its number; then it hangs up, if it says so.
type Lie = dyn Fn(u16) -> (Vec<u8>, bool) + Send + Sync;

/// Answers everybody at `NAME.sock` until the test is over.
fn liar(home: &Home, lie: Arc<Lie>) -> String {
    let sock = home.path("liar.sock");
    let _ = std::fs::remove_file(&sock);
    let listener = UnixListener::bind(&sock).unwrap();
    // Ends with the process: a test binary does not outlive its tests.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let lie = Arc::clone(&lie);
            std::thread::spawn(move || converse(&socket, &*lie));
        }
    });
    sock
}

fn converse(mut socket: &UnixStream, lie: &Lie) {
    let mut asked = [0; 32];
    while socket.read_exact(&mut asked).is_ok() {
        let (answer, over) = lie(u16::from_le_bytes([asked[4], asked[5]]));
        if socket.write_all(&answer).is_err() || over {
            return;
        }
    }
}

/// Every command that talks to a socket, with an old file where it would write.
fn all_commands(home: &Home, sock: &str) -> Vec<Ran> {
    let out = home.path("out");
    std::fs::write(&out, OLD).unwrap();
    let commands = [
        vec!["map", sock],
        vec!["map", sock, "--svg", &out],
        vec!["peek", sock, "1"],
        vec!["view", sock],
        vec!["dump", sock, &out],
        vec!["snapshot", sock, &out],
    ];
    let ran = commands.iter().map(|command| pageveil(command)).collect();
    assert_eq!(read(&out), OLD, "the old file stays");
    assert_eq!(home.files(), ["key", "out"], "nothing half is left");
    ran
}

#[test]
fn answers_that_are_no_frames_fail_every_command_clearly() {
    let home = Home::new();
    let garbage = Dice(7).bytes(10_000);
    let mut magic = frame(1, 0, 0, 0);
    magic[3] ^= 0x20;
    let lies: Vec<(Vec<u8>, &str)> = vec![
        (garbage, "what came over the socket is not this protocol"),
        (magic, "what came over the socket is not this protocol"),
        (frame(1, u64::MAX, 0, 0), "bytes are more than one answer can be"),
        (frame(1, 1 << 40, 0, 0), "bytes are more than one answer can be"),
        (frame(1, 56, 0, 0), "the socket: "),
        (frame(1, 0, 0, 0)[..20].to_vec(), "the socket: "),
        (Vec::new(), "the socket: "),
    ];
    for (answer, words) in lies {
        let sock = liar(&home, Arc::new(move |_| (answer.clone(), true)));
        for ran in all_commands(&home, &sock) {
            // The view's first answer comes another way, with a descriptor.
            assert!(ran.err.contains(words) || ran.err.contains("pageveil: "), "{ran:?}");
            ran.refused(&[]);
        }
    }
}

/// As many pages as it likes, and then states for fewer, or for none.
#[test]
fn counts_that_do_not_fit_together_fail_clearly() {
    let home = Home::new();
    for pages in [0_u64, 1, 2048, 1 << 18, 1 << 40, u64::MAX] {
        let about = move || {
            let words =
                [[5; 16].to_vec(), 1_u64.to_le_bytes().to_vec(), pages.to_le_bytes().to_vec()];
            [frame(1, 56, 0, 0), words.concat(), vec![0; 24]].concat()
        };
        let few = pages.min(100).saturating_sub(1);
        let lie = move |ask| match ask {
            1 => (about(), false),
            2 => ([frame(2, few, 0, few), vec![2; few as usize]].concat(), false),
            // One page where more were asked for, and of another number.
            3 => ([frame(3, 4144, 0, 1), vec![9; 4144]].concat(), false),
            _ => (frame(7, 0, 0, 0), false),
        };
        let sock = liar(&home, Arc::new(lie));
        let out = home.path("out");
        std::fs::write(&out, OLD).unwrap();
        if pages > 0 {
            pageveil(&["map", &sock]).refused(&["not this protocol"]);
            pageveil(&["dump", &sock, &out]).refused(&["not this protocol"]);
        }
        pageveil(&["peek", &sock, "1"]).refused(&["not this protocol"]);
        // An image without a byte is none.
        let words = ["what came is no image: cut short: 0 bytes of 4096"];
        pageveil(&["snapshot", &sock, &out]).refused(&words);
        assert_eq!(read(&out), OLD);
    }
}

#[test]
fn an_image_that_ends_early_does_not_take_the_old_one_s_place() {
    let home = Home::new();
    let about = [frame(1, 56, 0, 0), vec![1; 56]].concat();
    let piece = [frame(7, 8192, 0, 0), b"PAGEVEIL".to_vec(), vec![0; 8184]].concat();
    let end = frame(7, 0, 0, 0);
    let out = home.path("out");
    for (image, words) in
        [([piece.clone(), end].concat(), "what came is no image"), (piece, "the socket: ")]
    {
        std::fs::write(&out, OLD).unwrap();
        let about = about.clone();
        let lie = move |ask| if ask == 1 { (about.clone(), false) } else { (image.clone(), true) };
        let sock = liar(&home, Arc::new(lie));
        pageveil(&["snapshot", &sock, &out]).refused(&[words]);
        assert_eq!(read(&out), OLD);
        assert_eq!(home.files(), ["key", "out"], "nothing half is left");
    }
}

#[test]
fn words_of_a_refusal_can_not_write_to_the_terminal() {
    let home = Home::new();
    let mut refusal = frame(1, 12, 0, 0);
    refusal[6] = 1;
    refusal.extend_from_slice(b"\x1b[2Jgone\r\n\x07!");
    let sock = liar(&home, Arc::new(move |_| (refusal.clone(), true)));
    let ran = pageveil(&["map", &sock]);
    ran.refused(&["gone"]);
    assert!(!ran.err.trim_end().contains(|letter: char| letter.is_control()), "{:?}", ran.err);
}
