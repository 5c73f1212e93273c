//! A peer that knows the keys of its connection and writes what it likes into its packets: quinn, below which stands a TLS that
//! replaces the frames of a packet before it encrypts them. So a connection is honest until the test begins to forge.

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::crypto::{
    ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Fills the frames of a packet: appends to an empty buffer of which so many bytes will be sent.
pub type Frames = Box<dyn FnMut(&mut Vec<u8>, usize) + Send>;

/// Of the identifiers that quinn gives to a connection.
const ID_BYTES: usize = 8;

/// What the packets of one client say.
#[derive(Default)]
pub struct Forger {
    frames: Mutex<Option<Frames>>,
    is_deaf: AtomicBool,
    forged: AtomicU64,
    /// By which the other side calls this one.
    own_id: Mutex<Vec<u8>>,
}

impl Forger {
    /// From now on every packet that is large enough to matter has these frames and nothing else.
    pub fn forge(&self, frames: impl FnMut(&mut Vec<u8>, usize) + Send + 'static) {
        *self.frames.lock().unwrap() = Some(Box::new(frames));
    }

    /// From now on nothing is heard but the end of the connection, so that nothing is acknowledged.
    pub fn be_deaf(&self) {
        self.is_deaf.store(true, Ordering::SeqCst);
    }

    /// Packets that were forged so far.
    pub fn forged(&self) -> u64 {
        self.forged.load(Ordering::SeqCst)
    }

    pub fn own_id(&self) -> Vec<u8> {
        self.own_id.lock().unwrap().clone()
    }

    /// A configuration for quinn whose connections are this forger's.
    pub fn config(self: &Arc<Forger>, tls: rustls::ClientConfig) -> quinn::ClientConfig {
        let honest = Arc::new(QuicClientConfig::try_from(tls).unwrap());
        quinn::ClientConfig::new(Arc::new(Forging {
            honest,
            forger: Arc::clone(self),
        }))
    }

    fn rewrite(&self, payload: &mut [u8]) {
        if let Some(frames) = self.frames.lock().unwrap().as_mut() {
            let mut forged = Vec::with_capacity(payload.len());
            frames(&mut forged, payload.len());
            assert!(forged.len() <= payload.len(), "the frames fit");
            // Zeros are padding.
            forged.resize(payload.len(), 0);
            payload.copy_from_slice(&forged);
            self.forged.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Forging {
    honest: Arc<QuicClientConfig>,
    forger: Arc<Forger>,
}

impl ClientConfig for Forging {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let honest = Arc::clone(&self.honest).start_session(version, server_name, params)?;
        Ok(Box::new(Forged {
            honest,
            forger: Arc::clone(&self.forger),
            given: 0,
        }))
    }
}

/// A TLS session; those keys that come after the handshake's are the forger's.
struct Forged {
    honest: Box<dyn Session>,
    forger: Arc<Forger>,
    /// Sets of keys.
    given: usize,
}

impl Forged {
    fn own(&self, keys: KeyPair<Box<dyn PacketKey>>) -> KeyPair<Box<dyn PacketKey>> {
        let own = |honest| -> Box<dyn PacketKey> {
            Box::new(Key {
                honest,
                forger: Arc::clone(&self.forger),
            })
        };
        KeyPair {
            local: own(keys.local),
            remote: own(keys.remote),
        }
    }
}

impl Session for Forged {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.honest.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.honest.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.honest.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.honest.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.honest.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.honest.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.honest.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.honest.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.honest.write_handshake(buf)?;
        self.given += 1;
        // The first are the handshake's.
        match self.given {
            1 => Some(keys),
            _ => Some(Keys {
                header: keys.header,
                packet: self.own(keys.packet),
            }),
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.honest.next_1rtt_keys()?;
        Some(self.own(keys))
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.honest.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.honest.export_keying_material(output, label, context)
    }
}

struct Key {
    honest: Box<dyn PacketKey>,
    forger: Arc<Forger>,
}

impl PacketKey for Key {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let end = buf.len() - self.honest.tag_len();
        self.forger.rewrite(&mut buf[header_len..end]);
        self.honest.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.honest.decrypt(packet, header, payload)?;
        if header.len() > ID_BYTES {
            *self.forger.own_id.lock().unwrap() = header[1..=ID_BYTES].to_vec();
        }
        match self.forger.is_deaf.load(Ordering::SeqCst) && !ends_connection(payload) {
            true => Err(CryptoError),
            false => Ok(()),
        }
    }

    fn tag_len(&self) -> usize {
        self.honest.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.honest.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// Whether there is a CONNECTION_CLOSE, which nothing comes before but what is read here.
fn ends_connection(mut frames: &[u8]) -> bool {
    loop {
        match read_number(&mut frames) {
            Some(0x00 | 0x01) => {}
            Some(kind @ (0x02 | 0x03)) => {
                let (_largest, _delay) = (read_number(&mut frames), read_number(&mut frames));
                let more = read_number(&mut frames).unwrap_or(0);
                let marks = if kind == 0x03 { 3 } else { 0 };
                for _ in 0..=more * 2 + marks {
                    read_number(&mut frames);
                }
            }
            Some(0x1c | 0x1d) => return true,
            _ => return false,
        }
    }
}

/// A number as RFC 9000 writes it (section 16).
fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let length = 1 << (bytes.first()? >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let first = u64::from(number[0] & 0x3f);
    Some(
        number[1..]
            .iter()
            .fold(first, |sum, &byte| sum << 8 | u64::from(byte)),
    )
}

/// Appends a number, always in eight bytes.
pub fn put_number(bytes: &mut Vec<u8>, number: u64) {
    assert!(number < 1 << 62);
    bytes.extend((number | 0b11 << 62).to_be_bytes());
}
