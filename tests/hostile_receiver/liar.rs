//! A receiver that says what a test tells it to. It is quinn, the codec and zstd, and nothing of driftless's own ends.

use crate::support::peer::{Packed, unpack};
use crate::support::{PATIENCE, Pair, runtime};
use crossbeam_channel::{Receiver, unbounded};
use driftless_certs::receiver_config;
use driftless_protocol::codec::{FrameReader, encode_frame};
use driftless_protocol::message::*;
use driftless_protocol::version::{ALPN_MIRROR, HELLO_BYTES, Hello};
use driftless_protocol::{Carried, CloseCode, ObjectId, TreeSum};
use quinn::crypto::rustls::QuicServerConfig;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// An endpoint with the receiver's key.
pub struct Liar {
    pub endpoint: quinn::Endpoint,
    pub address: SocketAddr,
}

/// The answer to an opening: there is something, of nobody's.
pub fn opened(open: &Open) -> Opened {
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
pub struct Lie {
    pub connection: quinn::Connection,
    pub control: Packed,
    pub heard: Receiver<Heard>,
    pub incarnation: u128,
}

/// The ops that have come: they travel on two streams, and a later one may be here before an earlier one.
#[derive(Default)]
pub struct Arrived {
    pub numbers: BTreeSet<u64>,
    /// The number of the last mark, and the point of the journal that it marks.
    pub mark: Option<(u64, u64)>,
}

impl Arrived {
    pub fn note(&mut self, op: &Op) {
        self.numbers.insert(op.number);
        if let OpBody::Mark { sequence } = op.body {
            self.mark = self.mark.max(Some((op.number, sequence)));
        }
    }

    /// All up to this one are here.
    pub fn through(&self) -> u64 {
        let in_turn = self
            .numbers
            .iter()
            .zip(1..)
            .take_while(|(number, turn)| *number == turn);
        in_turn.last().map_or(0, |(number, _)| *number)
    }

    /// The point of the journal up to which all is here, if there is one.
    pub fn mark(&self) -> Option<u64> {
        let (number, sequence) = self.mark?;
        (self.through() >= number).then_some(sequence)
    }
}

/// What a sender said.
#[derive(Debug)]
pub enum Heard {
    Control(ToReceiver),
    Ops(OpFrame),
    Bulk(BulkFrame),
}

impl Liar {
    pub fn new(pair: &Pair) -> Liar {
        let tls = receiver_config(&pair.receiver, &[ALPN_MIRROR]).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let handle = runtime();
        let _inside = handle.enter();
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        Liar { endpoint, address }
    }

    /// Takes a connection up to its `Open`, and answers that with an empty sum.
    pub fn accept(&self) -> Lie {
        let (mut lie, open) = self.accept_opening();
        lie.say(&ToSender::Opened(opened(&open)));
        lie
    }

    /// Takes a connection up to its `Open`.
    pub fn accept_opening(&self) -> (Lie, Open) {
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
    pub fn say(&mut self, message: &ToSender) {
        self.control.send_bytes(&encode_frame(message).unwrap());
    }

    /// The next that is said; none at the end.
    pub fn next(&mut self) -> Option<Heard> {
        match self.heard.recv_timeout(PATIENCE / 3) {
            Ok(heard) => Some(heard),
            Err(crossbeam_channel::RecvTimeoutError::Disconnected) => None,
            Err(_) => panic!("the sender says nothing"),
        }
    }

    /// Answers that nothing is in any of these directories.
    pub fn list_nothing(&mut self, directories: &Directories) {
        for _ in &directories.0 {
            let rows = Rows(vec![]);
            self.say(&ToSender::Listing { rows, last: true });
        }
    }

    /// Plays the receiver with these rows as the listing of its root, until all was sent; gives all that was
    /// said.
    pub fn play(&mut self, rows: &[Row]) -> Vec<Heard> {
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
    pub fn progress(&mut self, number: u64, mark: Option<u64>) {
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

    pub fn closed(&self) -> CloseCode {
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

pub async fn take_streams(connection: quinn::Connection, said: crossbeam_channel::Sender<Heard>) {
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
