//! Answers that nobody asked for, that never end, or that cannot be.

use crate::liar::{Heard, Liar, opened};
use crate::scene::{Scene, row};
use crate::support::{Following, is_root, runtime, skip};
use driftless::daemon::verify::{self, How, VerifyReport, progress_file};
use driftless::daemon::{Phase, SenderOptions, Stop};
use driftless_protocol::message::*;
use driftless_protocol::{CloseCode, Kind, ObjectId};

/// S-25: answers to what was never asked, for numbers that were never given. The sender ends the connection, or goes on; it
/// never panics, waits for ever, or reads what it was not going to send.
#[test]
fn s25_answers_that_nobody_asked_for() {
    let progress = |applied| Progress {
        applied,
        durable: applied,
        cursor: None,
    };
    let lies: Vec<(&str, Vec<ToSender>)> = vec![
        (
            "need of nothing",
            vec![ToSender::Need {
                number: u64::MAX,
                basis: false,
            }],
        ),
        (
            "need of zero",
            vec![ToSender::Need {
                number: 0,
                basis: true,
            }],
        ),
        (
            "signature of nothing",
            vec![ToSender::Signature {
                number: 99,
                part: SignaturePart(vec![0; 100]),
                last: true,
            }],
        ),
        (
            "held of nothing",
            vec![ToSender::Held {
                number: 99,
                spans: HeldSpans(vec![HeldSpan {
                    span: u64::MAX,
                    sum: [0; 32],
                }]),
            }],
        ),
        ("progress beyond", vec![ToSender::Progress(progress(u64::MAX))]),
        (
            "ended beyond",
            vec![ToSender::Ended(Runs(vec![Run {
                first: 1,
                last: u64::MAX,
            }]))],
        ),
        (
            "failed beyond",
            vec![ToSender::Failed {
                number: u64::MAX,
                kind: FailureKind::Mismatch,
                text: "no".into(),
                held: None,
            }],
        ),
        ("confirmed unasked", vec![ToSender::Confirmed { token: u64::MAX }]),
        ("listing failed", vec![ToSender::ListingFailed("no".into())]),
        (
            "listing that does not end",
            vec![
                ToSender::Listing {
                    rows: Rows(vec![]),
                    last: false
                };
                50
            ],
        ),
        (
            "listing out of order",
            vec![ToSender::Listing {
                rows: Rows(vec![row("b", 1, Kind::File, None), row("a", 2, Kind::File, None)]),
                last: true,
            }],
        ),
        (
            "listing of one name twice",
            vec![ToSender::Listing {
                rows: Rows(vec![
                    row("a", 1, Kind::File, None),
                    row("a", 1, Kind::Directory, None),
                ]),
                last: true,
            }],
        ),
        (
            "listing of the root in itself",
            vec![ToSender::Listing {
                rows: Rows(vec![Row {
                    object: ObjectId::ROOT,
                    ..row("d", 1, Kind::Directory, None)
                }]),
                last: true,
            }],
        ),
    ];
    for (what, messages) in lies {
        let scene = Scene::new();
        let outcome = scene.run(|lie| {
            messages.iter().for_each(|message| lie.say(message));
            // Whatever it does, it does not take longer than this.
            let ended = runtime().block_on(async {
                tokio::time::timeout(std::time::Duration::from_millis(500), lie.connection.closed()).await
            });
            if let Ok(quinn::ConnectionError::ApplicationClosed(close)) = ended {
                let code = CloseCode::from_number(close.error_code.into_inner());
                assert!(
                    matches!(code, CloseCode::Violation | CloseCode::Limit | CloseCode::Done),
                    "{what}: {code:?}"
                );
            }
        });
        assert_ne!(outcome, Ok(true), "{what}: the sender believes that all is well");
        scene.check_canary();
    }
}

/// Who never ends a listing, or never begins it, keeps nobody from stopping.
#[test]
fn a_listing_without_end_is_left_when_the_sender_is_to_stop() {
    for parts in [0, 1] {
        let scene = Scene::new();
        let liar = Liar::new(&scene.pair);
        let following = Following::start(scene.pair.sender_options(liar.address, true));
        let mut lie = liar.accept();
        while !matches!(lie.next(), Some(Heard::Control(ToReceiver::List(_)))) {}
        for _ in 0..parts {
            let rows = Rows(vec![row("a", 1, Kind::File, None)]);
            lie.say(&ToSender::Listing { rows, last: false });
        }
        drop(following);
        assert_eq!(lie.closed(), CloseCode::Done);
    }
}

/// A name that is listed again and again is no progress: the sender leaves, and deletes nothing.
#[test]
fn a_listing_that_repeats_itself_is_left() {
    let scene = Scene::new();
    let outcome = scene.run(|lie| {
        while !matches!(lie.next(), Some(Heard::Control(ToReceiver::List(_)))) {}
        for _ in 0..2 {
            let rows = Rows(vec![row("a", 1, Kind::File, None)]);
            lie.say(&ToSender::Listing { rows, last: false });
        }
        assert_eq!(lie.closed(), CloseCode::Done);
    });
    assert_ne!(outcome, Ok(true));
}

/// `verify` puts nothing aside that it has not asked for, however long an answer that it waits for takes.
#[test]
fn what_verify_has_not_asked_for_is_not_kept() {
    if !is_root() {
        return skip("other owners need root");
    }
    let scene = Scene::new();
    // An owner with a name, which has to be asked about.
    std::os::unix::fs::chown(scene.pair.src().join("public"), Some(1), None).unwrap();
    let liar = Liar::new(&scene.pair);
    let options = scene.pair.sender_options(liar.address, false);
    std::thread::scope(|scope| {
        let verifying = scope.spawn(|| verified(&options));
        let (mut lie, open) = liar.accept_opening();
        lie.say(&ToSender::Opened(Opened {
            carried: open.carried,
            ..opened(&open)
        }));
        loop {
            match lie.next() {
                Some(Heard::Control(ToReceiver::ListDisk(_))) => {
                    let rows = Rows(Vec::new());
                    lie.say(&ToSender::Listing { rows, last: true });
                }
                Some(Heard::Control(ToReceiver::Owners(_))) => break,
                other => panic!("{other:?}"),
            }
        }
        lie.say(&ToSender::Contents(Digests(Vec::new())));
        assert_eq!(lie.closed(), CloseCode::Done);
        let told = verifying.join().unwrap().unwrap_err();
        assert!(
            told.contains("broke the protocol while it was asked for users"),
            "{told}"
        );
    });
}

fn verified(options: &SenderOptions) -> Result<VerifyReport, String> {
    let how = How {
        rate: None,
        restart: false,
        progress: progress_file(options),
        settle: None,
        repair: None,
        stop: &Stop::default(),
    };
    verify::run(options, &how, &runtime(), &driftless::daemon::Silent).map_err(|error| error.to_string())
}

/// Who is restarted, or replaced, may answer as it should.
#[test]
fn an_opening_that_is_answered_wrongly_is_made_again() {
    let scene = Scene::new();
    let liar = Liar::new(&scene.pair);
    let following = Following::start(scene.pair.sender_options(liar.address, true));
    let (mut lie, _) = liar.accept_opening();
    lie.say(&ToSender::SIGN_OF_LIFE);
    lie.say(&ToSender::Changed);
    let is_over = |phase: &Phase| matches!(phase, Phase::Waiting { .. } | Phase::Halted { .. });
    let phase = following.watching.wait_for(is_over);
    assert!(
        matches!(&phase, Phase::Waiting { error, .. } if error.ends_with("with Changed")),
        "{phase:?}"
    );
    assert_eq!(lie.closed(), CloseCode::Violation);
    liar.accept();
    following.stop().unwrap();
}

/// S-08: signatures that no basis has. The file travels all the same, or the sender leaves.
#[test]
fn s08_signatures_that_lie() {
    let librsync = |block: u32, strong: u32| {
        let mut bytes = [0x7273_0136u32, block, strong].map(u32::to_be_bytes).concat();
        bytes.resize(4000, 0xab);
        bytes
    };
    for signature in [
        vec![],
        vec![0xff; 5000],
        librsync(0, 16),
        librsync(2048, 0),
        librsync(2048, u32::MAX),
    ] {
        let scene = Scene::new();
        let _ = scene.run(|lie| {
            let mut offered = 0;
            while let Some(heard) = lie.next() {
                match heard {
                    Heard::Control(ToReceiver::List(directories)) => lie.list_nothing(&directories),
                    Heard::Ops(frame) => {
                        for message in frame.0 {
                            match message {
                                OpMessage::Op(Op {
                                    number,
                                    body:
                                        OpBody::PutFile {
                                            content: Content::Offer { .. },
                                            ..
                                        },
                                    ..
                                }) => {
                                    offered = number;
                                    lie.say(&ToSender::Need { number, basis: true });
                                    let part = SignaturePart(signature.clone());
                                    lie.say(&ToSender::Signature {
                                        number,
                                        part,
                                        last: true,
                                    });
                                }
                                // The content went out without the help of a basis.
                                OpMessage::Seal(seal) if seal.number == offered => return,
                                OpMessage::Op(op) if offered == 0 => lie.progress(op.number, None),
                                OpMessage::Op(op) => {
                                    let run = Run {
                                        first: op.number,
                                        last: op.number,
                                    };
                                    lie.say(&ToSender::Ended(Runs(vec![run])));
                                }
                                _ => {}
                            }
                        }
                    }
                    _ => {}
                }
            }
            assert_eq!(lie.closed(), CloseCode::Violation);
            assert!(offered > 0, "the large file was never offered");
        });
        scene.check_canary();
    }
}
