//! Images that are none, or not the one that was meant: nothing comes of them.

use std::fs;

use crate::common::kvm;
use crate::tool::{Home, Ran, pageveil, read};

/// `verify` and `restore` with more arguments; both refuse it with these words.
fn both_refuse(home: &Home, image: &str, key: &str, more: &[&str], words: &[&str]) {
    let verify = ["verify", image, "--key-file", key];
    pageveil(&[&verify[..], more].concat()).refused(words);
    restore(home, image, key, more).refused(&[words, &["nothing was restored"]].concat());
    assert!(fs::metadata(home.path("restored.sock")).is_err(), "nobody answers for it");
}

fn restore(home: &Home, image: &str, key: &str, more: &[&str]) -> Ran {
    let sock = home.path("restored.sock");
    pageveil(&[&["restore", image, "--key-file", key, "--control", &sock], more].concat())
}

#[test]
fn files_that_are_no_images_are_refused_by_what_is_wrong() {
    if kvm("files_that_are_no_images_are_refused_by_what_is_wrong").is_none() {
        return;
    }
    let home = Home::new();
    let (image, key) = (home.path("image"), home.path("key"));
    let garbage = crate::Dice(5).bytes(20_000);
    let mut odd = b"PAGEVEIL".to_vec();
    odd.resize(8192, 0xff);
    for (bytes, words) in [
        (&[][..], "cut short: 0 bytes of 4096"),
        (b"PAGEVEIL", "cut short: 8 bytes of 4096"),
        (b"hello", "not a sealed image"),
        (&garbage, "not a sealed image"),
        (&odd, "image format 4294967295 is not known here"),
    ] {
        fs::write(&image, bytes).unwrap();
        both_refuse(&home, &image, &key, &[], &[&image, words]);
        pageveil(&["inspect", &image]).refused(&[&image, words]);
        assert_eq!(read(&image), bytes);
    }
    let none = home.path("none");
    pageveil(&["verify", &none, "--key-file", &key]).refused(&["none: No such file"]);
    restore(&home, &none, &key, &[]).refused(&["none: No such file"]);
}

#[test]
fn a_genuine_image_under_another_key_root_or_vm_is_refused() {
    if kvm("a_genuine_image_under_another_key_root_or_vm_is_refused").is_none() {
        return;
    }
    let home = Home::new();
    let (key, stranger) = (home.path("key"), home.path("stranger"));
    pageveil(&["keygen", &stranger]).fine();
    let (one, two) = (home.counter(), home.run("two", "counter", "8M"));
    two.until_it_shares();
    let taken = [(&one, "first"), (&one, "second"), (&two, "of-two")].map(|(guest, name)| {
        let image = home.path(name);
        let told = pageveil(&["snapshot", &guest.sock, &image, "--json"]).json();
        (image, told["root"].as_str().unwrap().to_owned())
    });
    let [(first, older), (second, newer), (of_two, _)] = &taken;
    both_refuse(&home, first, &stranger, &[], &[first, "another key's image"]);
    let not_pinned = "genuine, but not the pinned image, perhaps an older one";
    both_refuse(&home, first, &key, &["--root", newer], &[first, not_pinned]);
    both_refuse(&home, second, &key, &["--root", older], &[second, not_pinned]);
    // Another VM's image has the right format and the right key.
    both_refuse(&home, of_two, &key, &["--root", newer], &[of_two, not_pinned]);
    // The second image under the first one's header is neither.
    let mut mixed = read(second);
    mixed[..4096].copy_from_slice(&read(first)[..4096]);
    let image = home.path("mixed");
    fs::write(&image, mixed).unwrap();
    both_refuse(&home, &image, &key, &[], &["the trailer was changed or is another image's"]);
    for (image, root) in [(first, older), (second, newer)] {
        pageveil(&["verify", image, "--key-file", &key, "--root", root]).fine();
    }
    one.runs_on();
    two.runs_on();
}
