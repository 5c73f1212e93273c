//! A receiver that lies, against a real sender: S-06, S-07, S-25 and S-29. It is quinn, the codec and zstd, and nothing of
//! driftless's own ends.
//!
//! Beside the source stands a *canary*, to which its links and the names of the peer lead. Nobody may even open it.

mod support;

use crossbeam_channel::{Receiver, unbounded};
use driftless::daemon::sender;
use driftless::daemon::verify::{self, How, VerifyReport, progress_file};
use driftless::daemon::{Deletes, Phase, SenderOptions, Stop, Summary};
use driftless::engine::filter::FilterBuilder;
use driftless_certs::receiver_config;
use driftless_protocol::codec::{FrameReader, Message, encode, encode_frame};
use driftless_protocol::message::*;
use driftless_protocol::version::{ALPN_MIRROR, HELLO_BYTES, Hello};
use driftless_protocol::{Attributes, Carried, CloseCode, Digest, Kind, Name, ObjectId, TreeSum};
use quinn::crypto::rustls::QuicServerConfig;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use support::peer::Packed;
use support::{Following, PATIENCE, Pair, Watching, is_root, runtime, skip};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

const SECRET_NAME: &str = "hidden-name";
const SECRET_TEXT: &str = "what nobody may know";
const CANARY_TEXT: &str = "beside the tree";

/// An endpoint with the receiver's key.
struct Liar {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
}

/// The answer to an opening: there is something, of nobody's.
fn opened(open: &Open) -> Opened {
    Opened {
        carried: open.carried.common(Carried::default()),
        bound: false,
        is_empty: false,
        cursor: None,
        sum: TreeSum::default(),
        root: ObjectId::ROOT,
        root_path: "/liar".into(),
        may_delete: true,
        demoted: false,
    }
}

/// One connection of the sender, opened.
struct Lie {
    connection: quinn::Connection,
    control: Packed,
    heard: Receiver<Heard>,
    incarnation: u128,
}

/// The ops that have come: they travel on two streams, and a later one may be here before an earlier one.
#[derive(Default)]
struct Arrived {
    numbers: BTreeSet<u64>,
    /// The number of the last mark, and the point of the journal that it marks.
    mark: Option<(u64, u64)>,
}

impl Arrived {
    fn note(&mut self, op: &Op) {
        self.numbers.insert(op.number);
        if let OpBody::Mark { sequence } = op.body {
            self.mark = self.mark.max(Some((op.number, sequence)));
        }
    }

    /// All up to this one are here.
    fn through(&self) -> u64 {
        let in_turn = self
            .numbers
            .iter()
            .zip(1..)
            .take_while(|(number, turn)| *number == turn);
        in_turn.last().map_or(0, |(number, _)| *number)
    }

    /// The point of the journal up to which all is here, if there is one.
    fn mark(&self) -> Option<u64> {
        let (number, sequence) = self.mark?;
        (self.through() >= number).then_some(sequence)
    }
}

/// What a sender said.
#[derive(Debug)]
enum Heard {
    Control(ToReceiver),
    Ops(OpFrame),
    Bulk(BulkFrame),
}

impl Liar {
    fn new(pair: &Pair) -> Liar {
        let tls = receiver_config(&pair.receiver, &[ALPN_MIRROR]).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let handle = runtime();
        let _inside = handle.enter();
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        Liar { endpoint, address }
    }

    /// Takes a connection up to its `Open`, and answers that with an empty sum.
    fn accept(&self) -> Lie {
        let (mut lie, open) = self.accept_opening();
        lie.say(&ToSender::Opened(opened(&open)));
        lie
    }

    /// Takes a connection up to its `Open`.
    fn accept_opening(&self) -> (Lie, Open) {
        let (connection, send, receive) = runtime().block_on(async {
            let connection = tokio::time::timeout(PATIENCE, self.endpoint.accept()).await;
            let connection = connection.expect("nobody connects").unwrap().await.unwrap();
            let (mut send, mut receive) = connection.accept_bi().await.unwrap();
            let mut bytes = [0; HELLO_BYTES];
            receive.read_exact(&mut bytes).await.unwrap();
            send.write_all(&Hello::OURS.to_bytes()).await.unwrap();
            (connection, send, receive)
        });
        let (said, heard) = unbounded();
        let tell = said.clone();
        runtime().spawn(unpack(receive, move |message| {
            tell.send(Heard::Control(message)).is_ok()
        }));
        runtime().spawn(take_streams(connection.clone(), said));
        let mut lie = Lie {
            connection,
            control: Packed::new(send, 20),
            heard,
            incarnation: 0,
        };
        let Some(Heard::Control(ToReceiver::Open(open))) = lie.next() else {
            panic!("no opening");
        };
        lie.incarnation = open.incarnation;
        (lie, open)
    }
}

impl Lie {
    fn say(&mut self, message: &ToSender) {
        self.control.send_bytes(&encode_frame(message).unwrap());
    }

    /// The next that is said; none at the end.
    fn next(&mut self) -> Option<Heard> {
        match self.heard.recv_timeout(PATIENCE / 3) {
            Ok(heard) => Some(heard),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => None,
            Err(_) => panic!("the sender says nothing"),
        }
    }

    /// Plays the receiver with these rows as the listing of its root, until all was sent; gives all that was
    /// said.
    fn play(&mut self, rows: &[Row]) -> Vec<Heard> {
        let mut all = Vec::new();
        let mut arrived = Arrived::default();
        while let Some(heard) = self.next() {
            match &heard {
                Heard::Control(ToReceiver::List(directories)) => {
                    for directory in &directories.0 {
                        let of_root = *directory == ObjectId::ROOT;
                        let rows = Rows(if of_root { rows.to_vec() } else { vec![] });
                        self.say(&ToSender::Listing { rows, last: true });
                    }
                }
                Heard::Ops(frame) => {
                    for message in &frame.0 {
                        let OpMessage::Op(op) = message else { continue };
                        arrived.note(op);
                        if let OpBody::PutFile {
                            content: Content::Offer { .. },
                            ..
                        } = op.body
                        {
                            let number = op.number;
                            self.say(&ToSender::Need { number, basis: false });
                        }
                        self.progress(arrived.through(), None);
                    }
                }
                Heard::Control(_) | Heard::Bulk(_) => {}
            }
            all.push(heard);
            if arrived.mark().is_some() {
                break;
            }
        }
        all
    }

    /// Tells that all up to an op is done, with a sum that no tree of the sender's has.
    fn progress(&mut self, number: u64, mark: Option<u64>) {
        let (incarnation, sum) = (self.incarnation, TreeSum::default());
        self.say(&ToSender::Progress(Progress {
            applied: number,
            durable: number,
            cursor: mark.map(|sequence| Cursor {
                incarnation,
                sequence,
                sum,
            }),
        }));
    }

    fn closed(&self) -> CloseCode {
        let ended =
            runtime().block_on(async { tokio::time::timeout(PATIENCE, self.connection.closed()).await });
        match ended.expect("the sender goes on") {
            quinn::ConnectionError::ApplicationClosed(close) => {
                CloseCode::from_number(close.error_code.into_inner())
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn take_streams(connection: quinn::Connection, said: crossbeam_channel::Sender<Heard>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let said = said.clone();
        tokio::spawn(async move {
            // Of the first session.
            let mut head = [0; 2];
            stream.read_exact(&mut head).await.ok()?;
            assert_eq!(head[1], 0);
            if head[0] == 1 {
                unpack(stream, move |frame| said.send(Heard::Ops(frame)).is_ok()).await;
                return Some(());
            }
            let mut frames = FrameReader::default();
            while let Ok(Some(chunk)) = stream.read_chunk(64 << 10, true).await {
                frames.push(&chunk.bytes);
                while let Some(frame) = frames.next().unwrap() {
                    said.send(Heard::Bulk(frame)).ok()?;
                }
            }
            Some(())
        });
    }
}

async fn unpack<M: Message>(mut stream: quinn::RecvStream, mut take: impl FnMut(M) -> bool) {
    let mut decoder = Decoder::new().unwrap();
    let mut frames = FrameReader::default();
    let mut inflated = vec![0; 64 << 10];
    while let Ok(Some(chunk)) = stream.read_chunk(64 << 10, true).await {
        let mut input = InBuffer::around(&chunk.bytes);
        loop {
            let mut output = OutBuffer::around(&mut inflated[..]);
            decoder.run(&mut input, &mut output).unwrap();
            let made = output.pos();
            frames.push(&inflated[..made]);
            while let Some(message) = frames.next().unwrap() {
                if !take(message) {
                    return;
                }
            }
            if input.pos() == chunk.bytes.len() && made < inflated.len() {
                break;
            }
        }
    }
}

/// A source with something excluded, links that lead out, and a canary that is watched.
struct Scene {
    pair: Pair,
    canary: rustix::fd::OwnedFd,
}

impl Scene {
    fn new() -> Scene {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let mut pair = Pair::new();
        let (src, canary) = (pair.src(), pair.path("canary"));
        fs::create_dir_all(canary.join("d")).unwrap();
        fs::write(canary.join("file"), CANARY_TEXT).unwrap();
        fs::write(canary.join("d/file"), CANARY_TEXT).unwrap();
        fs::create_dir(src.join("d")).unwrap();
        fs::write(src.join("public"), "public").unwrap();
        // Too large to travel inside its op.
        fs::write(src.join("large"), vec![9; 600 << 10]).unwrap();
        for name in [SECRET_NAME, &format!("d/{SECRET_NAME}")] {
            fs::write(src.join(name), SECRET_TEXT).unwrap();
        }
        symlink("../canary", src.join("out")).unwrap();
        symlink("../canary/file", src.join("outfile")).unwrap();
        let mut filter = FilterBuilder::new(src.as_os_str().as_encoded_bytes());
        filter.exclude(SECRET_NAME.as_bytes()).unwrap();
        pair.filter = filter.build().unwrap();
        pair.deletes = Deletes::Always;
        let watcher = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        for path in [canary.clone(), canary.join("d")] {
            add_watch(
                &watcher,
                path,
                WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::ATTRIB,
            )
            .unwrap();
        }
        Scene {
            pair,
            canary: watcher,
        }
    }

    /// Runs a sender to its end against what `answer` makes of its first connection. It must end, one way or another.
    fn run(&self, answer: impl FnOnce(&mut Lie) + Send) -> Result<bool, String> {
        let outcome = self.run_to_summary(answer);
        outcome.map(|summary| summary.in_sync && summary.failed.is_empty())
    }

    /// As [`Scene::run`], with all that the sender has to say.
    fn run_to_summary(&self, answer: impl FnOnce(&mut Lie) + Send) -> Result<Summary, String> {
        let liar = Liar::new(&self.pair);
        let options: SenderOptions = self.pair.sender_options(liar.address, false);
        let stop = Stop::default();
        let watching = Arc::new(Watching::default());
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let outcome = sender::run(&options, &runtime(), watching.clone(), &stop);
                outcome.map_err(|error| error.to_string())
            });
            let mut lie = liar.accept();
            answer(&mut lie);
            lie.connection.close(0u32.into(), b"");
            // Whether it would try again is not the question.
            stop.request();
            liar.endpoint.close(0u32.into(), b"");
            sending.join().expect("the sender panicked")
        })
    }

    /// Nobody opened, read or changed anything beside the tree.
    fn check_canary(&self) {
        let mut bytes = [0; 4096];
        let read = rustix::io::read(&self.canary, &mut bytes);
        assert_eq!(read, Err(rustix::io::Errno::AGAIN), "the canary was touched");
    }
}

fn row(name: &str, object: u64, kind: Kind, content: Option<&[u8]>) -> Row {
    Row {
        name: Name::new(name.as_bytes()).unwrap(),
        object: ObjectId(ObjectId::FIRST_LOCAL.0 + object),
        kind,
        attributes: Attributes {
            mode: 0o644,
            ..Attributes::default()
        },
        size: content.map_or(0, |content| content.len() as u64),
        digest: content.map(Digest::of),
        below: TreeSum::default(),
        entries: u64::from(kind == Kind::Directory),
    }
}

fn bytes_of(heard: &[Heard]) -> Vec<Vec<u8>> {
    let encoded = heard.iter().map(|heard| match heard {
        Heard::Control(message) => encode(message),
        Heard::Ops(frame) => encode(frame),
        Heard::Bulk(frame) => encode(frame),
    });
    encoded.map(Result::unwrap).collect()
}

fn contains(all: &[Vec<u8>], part: &[u8]) -> bool {
    all.iter()
        .any(|bytes| bytes.windows(part.len()).any(|window| window == part))
}

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
                    Heard::Control(ToReceiver::List(directories)) => directories.0.iter().for_each(|_| {
                        let rows = Rows(vec![]);
                        lie.say(&ToSender::Listing { rows, last: true });
                    }),
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

/// One who says "no" to everything is told to a person, and not asked for ever.
#[test]
fn a_receiver_that_lets_everything_fail_is_given_up() {
    let scene = Scene::new();
    let outcome = scene.run(|lie| {
        let mut ops = 0;
        let mut arrived = Arrived::default();
        while let Some(heard) = lie.next() {
            match heard {
                Heard::Control(ToReceiver::List(directories)) => directories.0.iter().for_each(|_| {
                    let rows = Rows(vec![]);
                    lie.say(&ToSender::Listing { rows, last: true });
                }),
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
