//! How often a sender waits for its receiver before it is in sync.

mod support;

use crossbeam_channel::{Receiver, bounded};
use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{Observer, Phase, Silent, Stop, sender};
use driftless::net::Sockets;
use driftless_certs::receiver_config;
use driftless_protocol::codec::{FrameReader, encode_frame};
use driftless_protocol::message::{Open, Opened, ToReceiver, ToSender};
use driftless_protocol::version::{ALPN_MIRROR, HELLO_BYTES, Hello};
use quinn::crypto::rustls::QuicServerConfig;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::peer::Peer;
use support::{PATIENCE, Pair, runtime};
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

/// A receiver that says nothing, not even hello, before it has read the whole opening; then it answers, and is done.
struct Reticent {
    endpoint: quinn::Endpoint,
    served: JoinHandle<()>,
}

impl Reticent {
    fn start(pair: &Pair, answer: impl FnOnce(&Open) -> Opened + Send + 'static) -> Reticent {
        let endpoint = listen(pair);
        let listening = endpoint.clone();
        let served = std::thread::spawn(move || serve(&listening, answer));
        Reticent { endpoint, served }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }
}

/// With the key of the pair's receiver.
fn listen(pair: &Pair) -> quinn::Endpoint {
    let handle = runtime();
    let _inside = handle.enter();
    let tls = receiver_config(&pair.receiver, &[ALPN_MIRROR]).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

fn serve(endpoint: &quinn::Endpoint, answer: impl FnOnce(&Open) -> Opened) {
    let (connection, _send, _receive) = answer_opening(endpoint, answer);
    // Nothing more is said: what else the sender wanted to know it would want for ever.
    runtime().block_on(async {
        tokio::time::timeout(PATIENCE, connection.closed())
            .await
            .expect("the sender is not content with the answer to its opening");
    });
}

fn answer_opening(
    endpoint: &quinn::Endpoint,
    answer: impl FnOnce(&Open) -> Opened,
) -> (quinn::Connection, quinn::SendStream, quinn::RecvStream) {
    let wait = |what: &str| format!("the sender waits for something before {what}");
    let (connection, mut send, mut receive) = runtime().block_on(async {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let streams = tokio::time::timeout(PATIENCE, connection.accept_bi()).await;
        let (send, receive) = streams
            .unwrap_or_else(|_| panic!("{}", wait("its hello")))
            .unwrap();
        (connection, send, receive)
    });
    let opening = read_opening(&mut receive);
    let open = runtime()
        .block_on(async { tokio::time::timeout(PATIENCE, opening).await })
        .unwrap_or_else(|_| panic!("{}", wait("its opening")));
    let opened = ToSender::Opened(answer(&open));
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&encode_frame(&opened).unwrap()).unwrap();
    encoder.flush().unwrap();
    let packed = std::mem::take(encoder.get_mut());
    runtime().block_on(async {
        send.write_all(&Hello::OURS.to_bytes()).await.unwrap();
        send.write_all(&packed).await.unwrap();
    });
    (connection, send, receive)
}

async fn read_opening(receive: &mut quinn::RecvStream) -> Open {
    let mut hello = [0; HELLO_BYTES];
    receive.read_exact(&mut hello).await.unwrap();
    Hello::from_bytes(&hello).unwrap();
    let (mut decoder, mut frames) = (Decoder::new().unwrap(), FrameReader::default());
    let mut inflated = vec![0; 64 << 10];
    loop {
        let chunk = receive.read_chunk(64 << 10, true).await.unwrap().unwrap();
        let mut input = InBuffer::around(&chunk.bytes);
        while input.pos() < chunk.bytes.len() {
            let mut output = OutBuffer::around(&mut inflated[..]);
            decoder.run(&mut input, &mut output).unwrap();
            let made = output.pos();
            frames.push(&inflated[..made]);
        }
        match frames.next().unwrap() {
            Some(ToReceiver::Open(open)) => return open,
            Some(other) => panic!("{other:?} in place of an opening"),
            None => {}
        }
    }
}

/// The handshake, and one more.
#[test]
fn an_unchanged_tree_takes_one_round_trip() {
    let pair = Arc::new(Pair::new());
    for n in 0..10 {
        fs::write(pair.src().join(format!("file{n}")), format!("{n}")).unwrap();
    }
    pair.seed().unwrap();
    // What the real receiver answers, passed on.
    let receiver = pair.receive();
    let address = receiver.address();
    let same = pair.clone();
    let reticent = Reticent::start(&pair, move |open| {
        let (peer, opened) = Peer::open(&same, address, open).unwrap();
        peer.leave();
        opened
    });
    let summary = pair.seed_to(reticent.address()).unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    assert_eq!(summary.counters.ops_total, 0, "nothing had to be asked for");
    reticent.served.join().unwrap();
    receiver.stop();
    // The cursor that was taken over holds for the next run, and for what comes after it.
    fs::write(pair.src().join("file3"), "another").unwrap();
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.counters.files_read == 1, "{summary:?}");
    pair.assert_equal();
    let summary = pair.seed().unwrap();
    assert_eq!(summary.counters.ops_total, 0);
}

/// It has said that it holds nothing, and is not asked for a list of that.
#[test]
fn an_empty_target_gets_the_first_entries_right_after_its_answer() {
    let pair = Arc::new(Pair::new());
    fs::write(pair.src().join("file"), "content").unwrap();
    let receiver = pair.receive();
    let address = receiver.address();
    let endpoint = listen(&pair);
    let (same, listening) = (pair.clone(), endpoint.clone());
    let served = std::thread::spawn(move || {
        let answer = |open: &Open| {
            let (peer, opened) = Peer::open(&same, address, open).unwrap();
            peer.leave();
            assert!(opened.is_empty && !opened.bound, "{opened:?}");
            opened
        };
        let (connection, _send, _receive) = answer_opening(&listening, answer);
        let entry = async { connection.accept_uni().await.unwrap().read_chunk(1, true).await };
        let entry = runtime().block_on(async { tokio::time::timeout(PATIENCE, entry).await });
        connection.close(0u32.into(), b"");
        assert!(entry.expect("the sender waits for a listing").unwrap().is_some());
    });
    let options = pair.sender_options(endpoint.local_addr().unwrap(), false);
    let stop = Stop::default();
    let stopping = stop.clone();
    let sending = std::thread::spawn(move || sender::run(&options, &runtime(), Arc::new(Silent), &stopping));
    let outcome = served.join();
    stop.request();
    let _ = sending.join().unwrap();
    receiver.stop();
    outcome.unwrap();
}

/// Goes on to connect when somebody has shaken hands, and stops then.
struct Hesitant {
    shaken: Receiver<()>,
    stop: Stop,
    was_shaken: AtomicBool,
}

impl Observer for Hesitant {
    fn phase(&self, phase: &Phase) {
        if matches!(phase, Phase::Connecting) {
            let shaken = self.shaken.recv_timeout(PATIENCE).is_ok();
            self.was_shaken.store(shaken, Ordering::Relaxed);
            self.stop.request();
        }
    }
}

/// In a run that somebody waits for.
#[test]
fn hands_are_shaken_while_the_source_is_walked() {
    let pair = Pair::new();
    fs::write(pair.src().join("file"), "one").unwrap();
    let sharing = |address| {
        let mut options = pair.sender_options(address, false);
        options.link.sockets = Some(Sockets::default());
        options
    };
    let endpoint = listen(&pair);
    let options = sharing(endpoint.local_addr().unwrap());
    let (say, shaken) = bounded(1);
    let accepting = std::thread::spawn(move || {
        runtime().block_on(async { endpoint.accept().await.unwrap().await.unwrap() });
        say.send(()).unwrap();
    });
    let stop = Stop::default();
    let hesitant = Arc::new(Hesitant {
        shaken,
        stop: stop.clone(),
        was_shaken: AtomicBool::default(),
    });
    let _ = sender::run(&options, &runtime(), hesitant.clone(), &stop);
    assert!(hesitant.was_shaken.load(Ordering::Relaxed), "nobody dialled");
    accepting.join().unwrap();

    let receiver = pair.receive();
    let options = sharing(receiver.address());
    let summary = sender::run(&options, &runtime(), Arc::new(Silent), &Stop::default()).unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    receiver.stop();
}

/// Starts the receiver when it is connected to for the second time.
struct Late {
    pair: Arc<Pair>,
    port: u16,
    walking: Mutex<Option<Instant>>,
    receiver: Mutex<Option<ReceiverDaemon>>,
}

const ANSWER_WITHIN: Duration = Duration::from_secs(2);

impl Observer for Late {
    fn phase(&self, phase: &Phase) {
        let mut walking = self.walking.lock().unwrap();
        match phase {
            Phase::Scanning => *walking = Some(Instant::now()),
            Phase::Connecting => match walking.take() {
                // Half of the time for the answer to the early handshake is over.
                Some(began) => {
                    while began.elapsed() < ANSWER_WITHIN / 2 {
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                }
                None => {
                    let mut options = self.pair.receiver_options();
                    options.listen = SocketAddr::from(([127, 0, 0, 1], self.port));
                    let receiver = ReceiverDaemon::start(options, &runtime()).unwrap();
                    *self.receiver.lock().unwrap() = Some(receiver);
                }
            },
            _ => {}
        }
    }
}

/// What is lost of the time for an answer is given once more.
#[test]
fn an_early_handshake_without_an_answer_does_not_end_the_run() {
    let pair = Arc::new(Pair::new());
    fs::write(pair.src().join("file"), "one").unwrap();
    let port = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let late = Arc::new(Late {
        pair: pair.clone(),
        port,
        walking: Mutex::default(),
        receiver: Mutex::default(),
    });
    let mut options = pair.sender_options(SocketAddr::from(([127, 0, 0, 1], port)), false);
    options.link.sockets = Some(Sockets::default());
    options.link.connect_timeout = ANSWER_WITHIN;
    let summary = sender::run(&options, &runtime(), late.clone(), &Stop::default()).unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    pair.assert_equal();
    late.receiver.lock().unwrap().take().unwrap().stop();
}

/// Equal sums are not enough: what the cursor does not speak of may not be on stable storage there.
#[test]
fn without_a_cursor_of_the_present_sum_durability_is_asked_for() {
    let pair = Pair::new();
    fs::write(pair.src().join("file"), "one").unwrap();
    pair.seed().unwrap();
    let receiver = pair.receive();
    let address = receiver.address();
    // The sender forgets how far the target has acknowledged.
    fs::remove_dir_all(pair.path("home-s")).unwrap();
    fs::create_dir(pair.path("home-s")).unwrap();
    let summary = pair.seed_to(address).unwrap();
    assert!(summary.in_sync && summary.counters.ops_total > 0, "{summary:?}");
    receiver.stop();
}
