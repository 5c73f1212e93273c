//! Files that are written under their name.

use super::*;
use std::os::unix::fs::MetadataExt;

#[test]
fn only_what_differs_is_written_and_the_file_stays_the_same_object() {
    let place = Place::new();
    let blocks = |letters: &[u8]| {
        letters
            .iter()
            .flat_map(|&letter| vec![letter; 4_096])
            .collect::<Vec<_>>()
    };
    place.write("f", blocks(b"abcdef"));
    std::fs::hard_link(place.path().join("f"), place.path().join("g")).unwrap();
    let number = std::fs::metadata(place.path().join("f")).unwrap().ino();
    for (new, written) in [
        (blocks(b"abXdef"), 4_096),
        (blocks(b"abXdef"), 0),
        // Longer, shorter, an odd end, and nothing.
        (blocks(b"abXdefgh"), 8_192),
        ([blocks(b"a"), b"tail".to_vec()].concat(), 4),
        (blocks(b"a\0c"), 8_192),
        (Vec::new(), 0),
    ] {
        let staged = place.staged(&new);
        let target = place.dir.open_in_place(&name("f")).unwrap();
        assert_eq!(target.take_content(&staged).unwrap(), written);
        assert_eq!(place.read("f"), new);
        assert_eq!(place.read("g"), new);
        assert_eq!(std::fs::metadata(place.path().join("f")).unwrap().ino(), number);
    }
    assert_eq!(place.names(), ["f", "g"]);
}

#[test]
fn nothing_but_a_regular_file_is_written_in_place() {
    let place = Place::new();
    place.write("f", "content");
    place.symlink("f", "link");
    place.fifo("fifo");
    place.mkdir("d");
    for other in ["link", "fifo", "d", "missing"] {
        assert!(place.dir.open_in_place(&name(other)).is_err(), "{other}");
    }
    assert_eq!(place.read("f"), b"content");
}
