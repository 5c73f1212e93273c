//! Ops that the receiver says have failed.

use crate::liar::{Arrived, Heard};
use crate::scene::{Scene, row};
use driftless_protocol::message::*;
use driftless_protocol::{Kind, ObjectId};

/// One who says "no" to everything is told to a person, and not asked for ever.
#[test]
fn a_receiver_that_lets_everything_fail_is_given_up() {
    let scene = Scene::new();
    let outcome = scene.run(|lie| {
        let mut ops = 0;
        let mut arrived = Arrived::default();
        while let Some(heard) = lie.next() {
            match heard {
                Heard::Control(ToReceiver::List(directories)) => lie.list_nothing(&directories),
                Heard::Ops(frame) => {
                    for message in frame.0 {
                        let OpMessage::Op(op) = message else { continue };
                        ops += 1;
                        if !matches!(op.body, OpBody::Mark { .. }) {
                            let (number, text) = (op.number, "no\u{1b}[2J".into());
                            let kind = FailureKind::Permission;
                            lie.say(&ToSender::Failed {
                                number,
                                kind,
                                text,
                                held: None,
                            });
                        }
                        arrived.note(&op);
                        lie.progress(arrived.through(), arrived.mark());
                    }
                }
                _ => {}
            }
            if ops > 10_000 {
                panic!("the sender never gives up");
            }
        }
    });
    assert_ne!(outcome, Ok(true));
    assert!(!format!("{outcome:?}").contains('\u{1b}'));
}

/// A mark says that all before it was sent. What waits for the removal of what stands in its place is sent after that, and before a mark.
#[test]
fn a_mark_comes_after_what_waited_for_a_removal() {
    let scene = Scene::new();
    let mut heard = Vec::new();
    let _ = scene.run(|lie| heard = lie.play(&[row("public", 1, Kind::Directory, None)]));
    let ops = heard.iter().filter_map(|heard| match heard {
        Heard::Ops(frame) => Some(&frame.0),
        _ => None,
    });
    let ops = ops.flatten().filter_map(|message| match message {
        OpMessage::Op(op) => Some(op),
        _ => None,
    });
    let number = |is_it: &dyn Fn(&OpBody) -> bool| ops.clone().find(|op| is_it(&op.body)).map(|op| op.number);
    let removed = number(&|body| matches!(body, OpBody::Remove { .. }));
    let put =
        number(&|body| matches!(body, OpBody::PutFile { place, .. } if place.name.as_bytes() == b"public"));
    let mark = number(&|body| matches!(body, OpBody::Mark { .. }));
    assert!(
        removed.is_some() && removed < put && put < mark,
        "{removed:?}, {put:?}, {mark:?}"
    );
}

/// What could not be removed is in error until the receiver says that it is gone, which it may have cleared away by itself: then
/// it is so no more, although something else is. It is asked about once, whatever it fails for.
#[test]
fn what_could_not_be_removed_is_in_error_as_long_as_it_is_there() {
    const STAYS: &str = "it stays";
    let gone = ObjectId(7_777_777);
    let there = [
        FailureKind::Permission,
        FailureKind::Mismatch,
        FailureKind::Unsupported,
    ];
    for stays in there.map(Some).into_iter().chain([None]) {
        let scene = Scene::new();
        let (mut lists, mut asked, mut is_told) = (0, 0, false);
        let summary = scene.run_to_summary(|lie| {
            let mut arrived = Arrived::default();
            while let Some(heard) = lie.next().filter(|_| asked <= 1) {
                match heard {
                    Heard::Control(ToReceiver::List(directories)) => {
                        for directory in directories.0 {
                            let of_root = directory == ObjectId::ROOT;
                            lists += usize::from(of_root);
                            let shown = Row {
                                object: gone,
                                ..row("gone", 0, Kind::File, Some(b"old"))
                            };
                            let rows = Rows(if of_root && lists == 1 {
                                vec![shown]
                            } else {
                                vec![]
                            });
                            lie.say(&ToSender::Listing { rows, last: true });
                        }
                    }
                    Heard::Ops(frame) => {
                        for message in frame.0 {
                            let OpMessage::Op(op) = message else { continue };
                            let failure = match &op.body {
                                OpBody::Remove { object, .. } if *object == gone => {
                                    Some((STAYS, FailureKind::Permission))
                                }
                                OpBody::Release { object, .. } if *object == gone => {
                                    asked += 1;
                                    stays.map(|kind| (STAYS, kind))
                                }
                                OpBody::PutFile { .. } => Some(("no file", FailureKind::Permission)),
                                _ => None,
                            };
                            if let Some((text, kind)) = failure {
                                lie.say(&ToSender::Failed {
                                    number: op.number,
                                    kind,
                                    text: text.into(),
                                    held: None,
                                });
                            }
                            arrived.note(&op);
                            // It is compared once more, after all of these are answered.
                            if arrived.mark().is_some() && !std::mem::replace(&mut is_told, true) {
                                lie.say(&ToSender::Changed);
                            }
                            lie.progress(arrived.through(), arrived.mark());
                        }
                    }
                    _ => {}
                }
            }
        });
        assert_eq!((lists, asked), (2, 1), "{stays:?}");
        let failed = summary.unwrap().failed;
        let has = |text: &str| failed.iter().any(|entry| entry.error.contains(text));
        assert!(has("no file"), "{failed:?}");
        assert_eq!(has(STAYS), stays.is_some(), "{failed:?}");
    }
}
