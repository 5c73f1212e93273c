//! What is excluded never leaves, and nobody finds out about it by guessing.

use crate::liar::Heard;
use crate::scene::{CANARY_TEXT, SECRET_NAME, SECRET_TEXT, Scene, bytes_of, contains, row};
use driftless_protocol::message::*;
use driftless_protocol::{Digest, Kind};
use std::collections::BTreeSet;

/// S-29: no name, size, content or digest of what is excluded leaves, and nothing outside is touched, whatever the receiver
/// says that it holds.
#[test]
fn s29_what_is_excluded_never_leaves() {
    let scene = Scene::new();
    let rows = [
        // Links of the source, as directories and files that could be compared.
        row("out", 1, Kind::Directory, None),
        row("outfile", 2, Kind::File, Some(CANARY_TEXT.as_bytes())),
        row("d", 3, Kind::Directory, None),
        row("public", 4, Kind::File, Some(b"other")),
        row("unknown", 5, Kind::File, Some(b"x")),
    ];
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    let mut heard = Vec::new();
    let _ = scene.run(|lie| heard = lie.play(&rows));
    let all = bytes_of(&heard);
    assert!(contains(&all, b"public"), "nothing was sent: {heard:?}");
    for part in [
        SECRET_NAME.as_bytes(),
        SECRET_TEXT.as_bytes(),
        CANARY_TEXT.as_bytes(),
        &Digest::of(SECRET_TEXT.as_bytes()).0,
        &Digest::of(CANARY_TEXT.as_bytes()).0,
    ] {
        assert!(!contains(&all, part), "{} left", part.escape_ascii());
    }
    scene.check_canary();
}

/// S-07: a receiver that guesses what is excluded does not learn whether it guessed right.
#[test]
fn s07_a_right_guess_looks_like_a_wrong_one() {
    let mut transcripts = BTreeSet::new();
    for guess in [SECRET_TEXT, "what somebody may know", "x"] {
        let scene = Scene::new();
        let rows = [row(SECRET_NAME, 1, Kind::File, Some(guess.as_bytes()))];
        let mut heard = Vec::new();
        let _ = scene.run(|lie| heard = lie.play(&rows));
        let said: BTreeSet<String> = heard.iter().flat_map(told).collect();
        assert!(said.iter().any(|line| line.contains("public")), "{said:?}");
        transcripts.insert(said);
        scene.check_canary();
    }
    assert_eq!(transcripts.len(), 1, "{transcripts:#?}");
}

/// What is told by kind and name; numbers and times differ from run to run.
fn told(heard: &Heard) -> Vec<String> {
    match heard {
        Heard::Ops(frame) => frame
            .0
            .iter()
            .filter_map(|message| match message {
                OpMessage::Op(op) => Some(match &op.body {
                    OpBody::PutFile { place, .. } => format!("file {}", place.name),
                    OpBody::PutSymlink { place, .. } => format!("link {}", place.name),
                    OpBody::MakeDirectory { place, .. } => format!("directory {}", place.name),
                    OpBody::Remove { place, .. } => format!("remove {}", place.name),
                    OpBody::Release { place, .. } => format!("release {}", place.name),
                    OpBody::Adopt { place, .. } => format!("adopt {}", place.name),
                    _ => return None,
                }),
                _ => None,
            })
            .collect(),
        Heard::Control(ToReceiver::List(directories)) => vec![format!("list {}", directories.0.len())],
        Heard::Control(_) | Heard::Bulk(_) => vec![],
    }
}
