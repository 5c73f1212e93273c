//! Receivers that connect to a sender and pull a tree: the real daemons, and a receiver of our own making that only listens.

#[path = "operating/site.rs"]
#[allow(dead_code, reason = "shared with the tests of operating")]
mod site;

use driftless_certs::{Identity, SERVER_NAME, sender_config};
use driftless_protocol::codec::{FrameReader, encode_frame};
use driftless_protocol::message::{ModuleName, Opened, PullRequest, ToReceiver, ToSender};
use driftless_protocol::version::{ALPN_PULL, HELLO_BYTES, Hello};
use driftless_protocol::{CloseCode, ObjectId, TreeSum};
use quinn::crypto::rustls::QuicClientConfig;
use serde_json::Value;
use site::{Daemon, PATIENCE, Site, contents, free_port, until};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, OnceLock};

/// A site whose `home` offers trees and whose `far` pulls them.
fn site(directories: &[&str]) -> Site {
    let site = Site::new(directories);
    fs::create_dir(site.path("far")).unwrap();
    fs::set_permissions(site.path("far"), fs::Permissions::from_mode(0o700)).unwrap();
    site
}

fn status_in(site: &Site, home: &str) -> Vec<Value> {
    let (out, _) = site.run_in(home, "status --json", 0);
    let status: Value = serde_json::from_str(&out).unwrap();
    status["daemons"].as_array().unwrap().clone()
}

/// The one module that pulls, as its receiver tells.
fn pulling(site: &Site) -> Value {
    let found = status_in(site, "far")
        .into_iter()
        .find(|one| one["role"] == "receiver");
    found.expect("no receiver")["pulls"][0].clone()
}

fn is_equal(site: &Site, one: &str, other: &str) -> bool {
    contents(&site.path(one)) == contents(&site.path(other))
}

#[track_caller]
fn wait_equal(site: &Site, one: &str, other: &str) {
    until(&format!("{one} is like {other}"), || is_equal(site, one, other));
}

/// A server that offers `src` as `www` at a port, and the word by which it is pulled.
fn serve(site: &Site, more: &str) -> (Daemon, String, u16) {
    let port = free_port();
    let line = format!("serve src --tree www --listen 127.0.0.1:{port} --json {more}");
    let word = format!("driftless://{}@127.0.0.1:{port}/www", site.fingerprint("home"));
    (Daemon::start(site, &line), word, port)
}

fn receive(site: &Site, word: &str) -> Daemon {
    Daemon::spawn(site.command_in("far", &format!("receive dst --from {word} --json")))
}

#[test]
fn a_paired_receiver_pulls_and_follows_and_comes_back() {
    let site = site(&["src/sub", "dst"]);
    site.write("src/sub/a", "one");
    site.write("src/big", vec![7; 3 << 20]);
    let (server, _, port) = serve(&site, "");

    let (code, told) = site.run("invite --tree www", 0);
    assert!(told.contains("lets it pull tree www"), "{told}");
    let (out, _) = site.run_in("far", code.trim().strip_prefix("driftless ").unwrap(), 0);
    let next = out.lines().last().unwrap();
    let word = next
        .strip_prefix("driftless receive DIR --from ")
        .unwrap_or_else(|| panic!("{out}"));
    let mut puller = receive(&site, word);
    wait_equal(&site, "src", "dst");

    // The roles are as ever: the sender watches.
    site.write("src/sub/b", "two");
    fs::remove_file(site.path("src/big")).unwrap();
    wait_equal(&site, "src", "dst");
    site.run("wait --level durable --targets all --timeout 60s", 0);

    // Both sides say so.
    until("the receiver says that it receives", || {
        pulling(&site)["phase"] == "receiving"
    });
    let far = status_in(&site, "far");
    assert_eq!(
        far[0]["address"],
        Value::Null,
        "a receiver that pulls listens nowhere: {far:?}"
    );
    let own = status_in(&site, "home");
    let offer = own.iter().find(|one| one["role"] == "receiver").unwrap();
    assert_eq!(offer["trees"], serde_json::json!(["www"]));
    let sender = site.sender("www", "(pulls www)");
    assert_eq!(sender["phase"], "in-sync");
    let (text, _) = site.run_in("far", "status", 0);
    assert!(text.contains("pulls") && text.contains("receiving"), "{text}");

    // Either may go away. What changed meanwhile comes afterwards, and what did not is not sent again.
    assert_eq!(server.stop(), Some(0), "a receiver that is not there is no fault");
    puller.wait(|line| line.contains("it is tried again"));
    site.write("src/sub/c", "three");
    let again = Daemon::start(
        &site,
        &format!("serve src --tree www --listen 127.0.0.1:{port} --json"),
    );
    wait_equal(&site, "src", "dst");
    until("in sync", || site.sender("www", "pulls")["phase"] == "in-sync");
    assert_eq!(site.sender("www", "pulls")["counters"]["files_sent"], 1);

    assert_eq!(puller.stop(), Some(0));
    until("the sender misses it", || {
        site.sender("www", "pulls")["phase"] == "waiting"
    });
    site.write("src/sub/d", "four");
    let puller = receive(&site, word);
    wait_equal(&site, "src", "dst");
    puller.stop();
    drop(again);
}

#[test]
fn who_loses_the_right_is_cut_off_and_told_so() {
    let site = site(&["src", "dst"]);
    site.write("src/a", "one");
    let (_server, word, _) = serve(&site, "");
    let far = site.fingerprint("far");

    // Nobody has a right yet, and that of pushing to a module of the same name is none to pull.
    let mut puller = receive(&site, &word);
    puller.hear(|line| line.contains(&format!("driftless peers add {far} --tree www")));
    site.run(
        &format!("peers add {far} --name laptop --module www --module *"),
        0,
    );
    until("it was refused again", || {
        let pull = pulling(&site);
        pull["phase"] == "waiting"
            && pull["error"]
                .as_str()
                .unwrap()
                .contains("does not let this receiver pull")
    });
    assert_eq!(contents(&site.path("dst")), []);

    site.run(&format!("peers add {far} --tree www"), 0);
    let (list, _) = site.run("peers list --json", 0);
    let list: Value = serde_json::from_str(&list).unwrap();
    let rights = serde_json::json!([{"module": "*", "rights": ["push", "delete", "verify"]}, {"module": "www", "rights": ["pull"]}]);
    assert_eq!(list["peers"][0]["rights"], rights);
    wait_equal(&site, "src", "dst");

    site.run("peers remove laptop", 0);
    until("it is cut off", || {
        pulling(&site)["error"]
            .as_str()
            .is_some_and(|error| error.contains("allowed") || error.contains("does not let"))
    });
    until("no sender is left for it", || {
        status_in(&site, "home").iter().all(|one| one["role"] != "sender")
    });
    site.write("src/b", "two");
    assert!(!site.path("dst/b").exists());
    puller.stop();
}

/// On the side that pulls: the sender is chosen by the trust store, and ends with its entry there.
#[test]
fn nothing_is_pulled_from_a_sender_that_is_no_longer_trusted() {
    let site = site(&["src", "dst"]);
    site.write("src/a", "one");
    let (_server, _, port) = serve(&site, &format!("--allow {}", site.fingerprint("far")));
    let add = format!(
        "peers add {} --name office --address 127.0.0.1:{port}",
        site.fingerprint("home")
    );
    site.run_in("far", &add, 0);
    let puller = receive(&site, "office::www");
    wait_equal(&site, "src", "dst");
    site.run_in("far", "peers remove office", 0);
    until("the connection is ended", || {
        let pull = pulling(&site);
        let error = pull["error"].as_str().unwrap_or_default();
        pull["phase"] == "waiting" && error.contains("no longer trusted") && error.contains("peers add")
    });
    site.write("src/b", "two");
    assert!(!site.path("dst/b").exists());
    site.run_in("far", &add, 0);
    wait_equal(&site, "src", "dst");
    assert_eq!(puller.stop(), Some(0));
}

/// On either side: who may pull, or is pulled from, is not known for a while, and that is no reason to refuse anybody for good.
#[test]
fn a_trust_store_that_cannot_be_read_stops_pulling_for_that_time() {
    let site = site(&["src", "dst"]);
    site.write("src/a", "one");
    let (_server, _, port) = serve(&site, "");
    site.run(
        &format!("peers add {} --name far --tree www", site.fingerprint("far")),
        0,
    );
    let add = format!(
        "peers add {} --name office --address 127.0.0.1:{port}",
        site.fingerprint("home")
    );
    site.run_in("far", &add, 0);
    let puller = receive(&site, "office::www");
    wait_equal(&site, "src", "dst");
    for (round, (peers, words)) in [
        ("home/peers.toml", "cannot find out now"),
        ("far/peers.toml", "peers.toml"),
    ]
    .into_iter()
    .enumerate()
    {
        let whole = site.read(peers).unwrap();
        site.write(peers, "[[peer]]\nname = \"half");
        until(&format!("{peers} stops it"), || {
            let pull = pulling(&site);
            let error = pull["error"].as_str().unwrap_or_default();
            pull["phase"] == "waiting" && error.contains(words)
        });
        let new = format!("src/{round}");
        site.write(&new, "meanwhile");
        site.write(peers, whole);
        wait_equal(&site, "src", "dst");
    }
    assert_eq!(puller.stop(), Some(0));
}

#[test]
fn a_daemon_offers_trees_and_another_pulls_by_its_configuration() {
    let site = site(&["src/keep", "src/.cache", "src2", "dst", "dst2"]);
    site.write("src/keep/a", "one");
    site.write("src/.cache/x", "secret");
    site.write("src2/b", "two");
    let port = free_port();
    let (here, far) = (site.fingerprint("home"), site.fingerprint("far"));
    let tree = |name: &str, source: &str, more: &str| {
        format!(
            "[[tree]]\nname = '{name}'\nsource = '{}'\n{more}\n",
            site.path(source).display()
        )
    };
    let settings = format!("[settings]\nlisten = '127.0.0.1:{port}'\nallow = ['{far}']\n");
    let one = tree("www", "src", "exclude = ['.cache/']");
    site.configure(&format!("{settings}{one}"));
    let (text, _) = site.run("config check", 0);
    assert!(text.contains("0 mirrors, 1 tree, 0 modules"), "{text}");
    let module = |name: &str, tree: &str, path: &str| {
        format!(
            "[[module]]\nname = '{name}'\npath = '{}'\nfrom = 'driftless://{here}@127.0.0.1:{port}/{tree}'\n",
            site.path(path).display()
        )
    };
    site.write(
        "far/driftless.toml",
        format!("{}{}", module("one", "www", "dst"), module("two", "more", "dst2")),
    );
    let server = Daemon::start(&site, "daemon --json");
    let puller = Daemon::spawn(site.command_in("far", "daemon --json"));
    until("the tree without what is excluded", || {
        contents(&site.path("dst")) == [("keep".into(), None), ("keep/a".into(), Some(b"one".to_vec()))]
    });
    assert_eq!(status_in(&site, "far")[0]["address"], Value::Null);

    // A tree that comes later is pulled by who waits for it; the other connection is not touched.
    let before = site.sender("www", "pulls")["since"].clone();
    site.configure(&format!("{settings}{one}{}", tree("more", "src2", "")));
    let (told, _) = site.run("reload", 0);
    assert!(told.contains("1 sender left alone"), "{told}");
    wait_equal(&site, "src2", "dst2");
    assert_eq!(site.sender("www", "pulls")["since"], before);

    // Paused and stopped like any mirror.
    site.run("pause more", 0);
    site.write("src2/c", "three");
    site.run("resume more", 0);
    wait_equal(&site, "src2", "dst2");
    site.run("stop more", 0);
    site.write("src2/d", "four");
    site.run("start more", 0);
    wait_equal(&site, "src2", "dst2");

    // Other rules: what is excluded by now goes, and the receiver need do nothing.
    let other = tree(
        "more",
        "src2",
        "exclude = ['c']\ndelete-excluded = true\ndelete = 'always'",
    );
    site.configure(&format!("{settings}{one}{other}"));
    site.run("reload", 0);
    until("c is gone", || {
        !site.path("dst2/c").exists() && site.path("dst2/d").exists()
    });
    assert_eq!(puller.stop(), Some(0));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_line() {
    let site = site(&["src", "dst"]);
    for (text, said) in [
        (
            "[[tree]]\nname = 'a'\nsource = 'SRC'\ntargets = ['x::y']\n",
            ":4: a [[tree]] has no targets",
        ),
        (
            "[[tree]]\nname = 'a'\nsource = 'SRC'\nport = 5\n",
            ":4: port is not of a tree",
        ),
        (
            "[[tree]]\nname = 'a'\nsource = 'SRC'\ntrash = '7d'\n",
            ":4: trash is not of a tree",
        ),
        (
            "[[tree]]\nname = 'a'\nsource = 'SRC'\nexclud = 'x'\n",
            ":4: exclud is not a key here: did you mean exclude?",
        ),
        (
            "[[tree]]\nname = 'a'\nsource = 'SRC'\n[[tree]]\nname = 'a'\nsource = 'SRC'\n",
            "called \"a\" already",
        ),
        (
            "[[module]]\nname = 'a'\npath = 'SRC'\nfrom = '/x'\n",
            ":4: from: \"/x\" is a directory here",
        ),
        (
            "[[module]]\nname = 'a'\npath = 'SRC'\nfrom = 'nas::www/sub'\n",
            ":4: from: a tree is pulled as a whole",
        ),
        (
            "[[mirror]]\nname = 'a'\nsource = 'SRC'\ntargets = ['x::y']\nfrom = 'x::y'\n",
            ":5: from belongs into a [[module]]",
        ),
        ("[tree]\n", ":1: there can be several of tree"),
    ] {
        site.configure(&text.replace("SRC", site.path("src").to_str().unwrap()));
        let (_, told) = site.run("config check", 2);
        assert!(told.contains(said), "{text}: {told}");
    }
    for (line, said) in [
        ("serve src --port 5", "--port is that of a receiver"),
        ("serve src --contimeout 5", "--contimeout is of whoever connects"),
        ("serve src --tree a/b", "choose another with --tree"),
        ("receive dst --from nas::www --listen :5", "cannot be used with"),
        ("receive dst --from nas::www/sub", "nas"),
        (
            "receive dst --from nas::www",
            "cannot pull nas::www: no peer called nas, or with that address, is known here (run `driftless invite --tree www` on nas",
        ),
        (
            "receive dst --from ./www",
            "is a directory, where a tree is needed that another machine offers",
        ),
        ("peers add x --tree a", "fingerprint"),
    ] {
        let (_, told) = site.run(line, 2);
        assert!(told.contains(said), "{line}: {told}");
    }
    let far = site.fingerprint("far");
    let (_, told) = site.run(&format!("peers add {far} --module m --rights pull,no-owner"), 2);
    assert!(told.contains("the right to pull is about reading"), "{told}");
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap())
}

/// A receiver that asks for a tree, says what it likes, and keeps everything that it is sent.
struct Raw {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
    send: quinn::SendStream,
    control: (quinn::RecvStream, Unpacked),
}

/// What came by one stream, inflated.
struct Unpacked {
    decoder: zstd::stream::raw::Decoder<'static>,
    bytes: Vec<u8>,
}

impl Unpacked {
    fn new() -> Unpacked {
        let decoder = zstd::stream::raw::Decoder::new().unwrap();
        Unpacked {
            decoder,
            bytes: Vec::new(),
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        use zstd::stream::raw::{InBuffer, Operation, OutBuffer};
        let (mut input, mut inflated) = (InBuffer::around(chunk), vec![0; 64 << 10]);
        loop {
            let mut output = OutBuffer::around(&mut inflated[..]);
            self.decoder.run(&mut input, &mut output).unwrap();
            let made = output.pos();
            self.bytes.extend_from_slice(&inflated[..made]);
            if input.pos() == chunk.len() && made < inflated.len() {
                return;
            }
        }
    }
}

type Closed = (CloseCode, String);

fn closed(error: &quinn::ConnectionError) -> Closed {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => (
            CloseCode::from_number(close.error_code.into_inner()),
            String::from_utf8_lossy(&close.reason).into_owned(),
        ),
        other => panic!("not closed by the sender: {other:?}"),
    }
}

impl Raw {
    /// Asks for a tree; an error is how the sender ends it.
    fn ask(site: &Site, identity: &Identity, port: u16, tree: &[u8]) -> Result<Raw, Closed> {
        let pinned = site.fingerprint("home").parse().unwrap();
        let tls = sender_config(identity, pinned, &[ALPN_PULL]).unwrap();
        runtime().block_on(async {
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
            let mut transport = quinn::TransportConfig::default();
            transport.max_concurrent_uni_streams(18u32.into());
            config.transport_config(Arc::new(transport));
            let address = ([127, 0, 0, 1], port).into();
            let connection = endpoint
                .connect_with(config, address, SERVER_NAME)
                .unwrap()
                .await
                .unwrap();
            let gone = async |connection: &quinn::Connection| {
                let error = tokio::time::timeout(PATIENCE, connection.closed()).await;
                closed(&error.expect("the connection stays open"))
            };
            let Ok((mut send, mut receive)) = connection.open_bi().await else {
                return Err(gone(&connection).await);
            };
            let _ = send.write_all(&Hello::OURS.to_bytes()).await;
            let request = PullRequest {
                tree: ModuleName(tree.to_vec()),
            };
            let _ = send.write_all(&encode_frame(&request).unwrap()).await;
            let mut hello = [0; HELLO_BYTES];
            if receive.read_exact(&mut hello).await.is_err() {
                return Err(gone(&connection).await);
            }
            Hello::from_bytes(&hello).unwrap();
            let mut raw = Raw {
                connection: connection.clone(),
                _endpoint: endpoint,
                send,
                control: (receive, Unpacked::new()),
            };
            // The sender's first bytes, or the end.
            match raw.control.0.read_chunk(64 << 10, true).await {
                Ok(Some(chunk)) => {
                    raw.control.1.push(&chunk.bytes);
                    Ok(raw)
                }
                _ => Err(gone(&connection).await),
            }
        })
    }

    fn say(&mut self, message: &ToSender) {
        // A zstd frame for each message is as good as one for all.
        let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        packed.write_all(&encode_frame(message).unwrap()).unwrap();
        let bytes = packed.finish().unwrap();
        runtime().block_on(self.send.write_all(&bytes)).unwrap();
    }

    /// Takes all streams that the sender opens from now on, as long as the connection lives: op streams inflated, others as they
    /// are.
    fn listen(&self) -> Arc<Mutex<Vec<u8>>> {
        let (heard, connection) = (Arc::new(Mutex::default()), self.connection.clone());
        let all: Arc<Mutex<Vec<u8>>> = heard.clone();
        runtime().spawn(async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                let all = all.clone();
                tokio::spawn(async move {
                    // And the number of the session.
                    let mut kind = [0; 2];
                    if stream.read_exact(&mut kind).await.is_err() {
                        return;
                    }
                    let mut unpacked = Unpacked::new();
                    while let Ok(Some(chunk)) = stream.read_chunk(64 << 10, true).await {
                        match kind {
                            [1, 0] => unpacked.push(&chunk.bytes),
                            _ => unpacked.bytes.extend_from_slice(&chunk.bytes),
                        }
                        all.lock().unwrap().append(&mut unpacked.bytes);
                    }
                });
            }
        });
        heard
    }
}

fn has(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Nothing that a receiver says makes the sender tell what is not offered, or to whom it is not offered.
#[test]
fn a_hostile_puller_learns_nothing_that_is_not_offered() {
    let site = site(&["src/.secret-dir", "other"]);
    site.write("src/.secret-dir/inside", "secret-content");
    site.write("src/secret-file.key", "secret-content");
    site.write("src/shown", "shown-content");
    site.write("other/hidden", "x");
    let identity = Identity::ephemeral().unwrap();
    let stranger = Identity::ephemeral().unwrap();
    let port = free_port();
    site.configure(&format!(
        "[settings]\nlisten = '127.0.0.1:{port}'\n\
         [[tree]]\nname = 'www'\nsource = '{}'\nexclude = ['.secret-dir/', '*.key']\n\
         [[tree]]\nname = 'other'\nsource = '{}'\n",
        site.path("src").display(),
        site.path("other").display()
    ));
    let _server = Daemon::start(&site, "daemon --json");

    // A stranger, and one with another right, are told the same of what there is and of what there is not.
    site.run(
        &format!(
            "peers add {} --name pusher --module www",
            Identity::ephemeral().unwrap().fingerprint()
        ),
        0,
    );
    let not_allowed = |asked: Result<Raw, Closed>| {
        let (code, text) = asked.err().expect("it was let in");
        assert_eq!(
            (code, text.as_str()),
            (CloseCode::NotAllowed, "this peer is not allowed here")
        );
    };
    for tree in [&b"www"[..], b"nothing", b"\xff", b""] {
        not_allowed(Raw::ask(&site, &stranger, port, tree));
    }
    site.run(
        &format!("peers add {} --name puller --tree www", identity.fingerprint()),
        0,
    );
    for tree in [&b"other"[..], b"nothing", b"www/.secret-dir", b"\xff"] {
        not_allowed(Raw::ask(&site, &identity, port, tree));
    }

    // What it may pull comes without what is excluded, whatever it says that it has.
    let Ok(mut raw) = Raw::ask(&site, &identity, port, b"www") else {
        panic!("it may pull");
    };
    let mut frames = FrameReader::default();
    frames.push(&raw.control.1.bytes);
    let mut said = Vec::new();
    while let Some(message) = frames.next::<ToReceiver>().unwrap() {
        said.push(message);
    }
    let open = said.iter().find_map(|message| match message {
        ToReceiver::Open(open) => Some(open.clone()),
        _ => None,
    });
    let open = open.expect("no opening");
    assert_eq!(open.module.0, b"www");
    raw.say(&ToSender::Opened(Opened {
        carried: open.carried,
        bound: false,
        is_empty: true,
        cursor: None,
        sum: TreeSum::default(),
        root: ObjectId::ROOT,
        root_path: "mine".into(),
        may_delete: true,
        demoted: false,
    }));
    // It asks for a listing of the receiver's root: we have nothing.
    raw.say(&ToSender::Listing {
        rows: Default::default(),
        last: true,
    });
    let heard = raw.listen();
    let hears = |word: &str| has(&heard.lock().unwrap(), word);
    until("what is offered comes", || hears("shown-content"));
    // Content that was not offered is not given, whatever its number is.
    for number in 1..100 {
        raw.say(&ToSender::Need { number, basis: false });
    }
    site.write("src/.secret-dir/later", "secret-content");
    site.write("src/later", "later-content");
    until("a change comes", || hears("later-content"));
    assert!(!hears("secret") && !has(&raw.control.1.bytes, "secret"));
    raw.connection.close(0u32.into(), b"");
}

/// A second receiver of one identity is sent away while the first one is there, and takes its place when that is dead.
#[test]
fn one_identity_pulls_a_tree_once() {
    let site = site(&["src", "dst", "dst2"]);
    site.write("src/a", "one");
    let far = site.fingerprint("far");
    let (_server, word, _) = serve(&site, &format!("--allow {far}"));
    let first = receive(&site, &word);
    wait_equal(&site, "src", "dst");
    let mut second = Daemon::spawn(site.command_in("far", &format!("receive dst2 --from {word} --json")));
    second.hear(|line| line.contains("over another connection of the same identity"));
    assert_eq!(contents(&site.path("dst2")), []);
    second.stop();
    // It hears nothing any more, as if the network was gone, and the machine starts again.
    first.cut_off();
    drop(first);
    let again = receive(&site, &word);
    site.write("src/b", "two");
    wait_equal(&site, "src", "dst");
    again.stop();
}
