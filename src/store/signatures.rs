//! Signatures of contents that a target is known to hold: what makes a delta possible without asking for one.
//!
//! A cache on disk, one file for an object, bounded in all; the least recently used go first. Nothing depends on it: a
//! signature that is missing, damaged or of another content costs one exchange with the receiver. Files are written
//! aside and renamed, and carry a checksum, so a crash leaves at worst one of no use.

use driftless_protocol::{Digest, ObjectId};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of all signatures of a mirror, unless told otherwise: enough for 80 GB of files.
pub const SIGNATURE_CACHE_BYTES: u64 = 256 << 20;

const DIGEST_BYTES: usize = 32;

/// The signatures of one mirror.
#[derive(Debug)]
pub struct Signatures {
    directory: PathBuf,
    bytes_max: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Length and time of last use.
    files: HashMap<ObjectId, (u64, u64)>,
    by_use: BTreeMap<u64, ObjectId>,
    bytes: u64,
    clock: u64,
}

/// Where what is remembered of a content is kept, whatever files hold it: two that hold the same share it. Each value
/// carries its whole digest, so that contents of one key only evict each other.
pub fn content_key(content: &Digest) -> ObjectId {
    let [a, b, c, d, e, f, g, h, ..] = content.0;
    ObjectId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

impl Signatures {
    /// Opens the cache in a directory, which is made if it is missing. Files of other names are left alone.
    pub fn open(directory: &Path, bytes_max: u64) -> io::Result<Signatures> {
        fs::create_dir_all(directory)?;
        let mut known = Known::default();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str().map(|name| (name, object_of(name))) {
                Some((_, Some(object))) => known.add(object, entry.metadata()?.len()),
                // Written aside by a run that was killed.
                Some((name, None)) if name.ends_with(".new") => fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        let signatures = Signatures {
            directory: directory.to_owned(),
            bytes_max,
            known: Mutex::new(known),
        };
        signatures.evict();
        Ok(signatures)
    }

    /// The signature of an object's content, if that of exactly this content is here.
    pub fn get(&self, object: ObjectId, content: &Digest) -> Option<Vec<u8>> {
        if !self.lock().touch(object) {
            return None;
        }
        let stored = fs::read(self.path(object)).ok();
        let signature = stored.and_then(|stored| open_sealed(stored, content));
        if signature.is_none() {
            self.remove(object);
        }
        signature
    }

    /// Keeps the signature of an object's content, in place of an older one. One that would take up a quarter of the
    /// cache is not kept.
    pub fn put(&self, object: ObjectId, content: &Digest, signature: &[u8]) -> io::Result<()> {
        let sealed = seal(content, signature);
        let length = sealed.len() as u64;
        if length > self.bytes_max / 4 {
            self.remove(object);
            return Ok(());
        }
        let path = self.path(object);
        let aside = path.with_extension("new");
        fs::write(&aside, sealed).and_then(|()| fs::rename(&aside, &path))?;
        self.lock().add(object, length);
        self.evict();
        Ok(())
    }

    /// Forgets the signature of an object.
    pub fn remove(&self, object: ObjectId) {
        if self.lock().remove(object) {
            let _ = fs::remove_file(self.path(object));
        }
    }

    /// Bytes of all signatures.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn evict(&self) {
        loop {
            let mut known = self.lock();
            let oldest = known.by_use.first_key_value().map(|(_, &object)| object);
            let Some(oldest) = oldest.filter(|_| known.bytes > self.bytes_max) else {
                return;
            };
            known.remove(oldest);
            drop(known);
            let _ = fs::remove_file(self.path(oldest));
        }
    }

    fn path(&self, object: ObjectId) -> PathBuf {
        self.directory.join(format!("{:016x}", object.0))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, object: ObjectId, length: u64) {
        self.remove(object);
        self.clock += 1;
        self.files.insert(object, (length, self.clock));
        self.by_use.insert(self.clock, object);
        self.bytes += length;
    }

    fn touch(&mut self, object: ObjectId) -> bool {
        let length = self.files.get(&object).map(|&(length, _)| length);
        length.is_some_and(|length| {
            self.add(object, length);
            true
        })
    }

    fn remove(&mut self, object: ObjectId) -> bool {
        self.files.remove(&object).is_some_and(|(length, used)| {
            self.by_use.remove(&used);
            self.bytes -= length;
            true
        })
    }
}

fn object_of(name: &str) -> Option<ObjectId> {
    let is_plain = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain
        .then(|| u64::from_str_radix(name, 16).ok().map(ObjectId))
        .flatten()
}

/// The checksum, the content's digest, the signature.
fn seal(content: &Digest, signature: &[u8]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content.0).update(signature);
    let mut sealed = Vec::with_capacity(2 * DIGEST_BYTES + signature.len());
    sealed.extend_from_slice(hasher.finalize().as_bytes());
    sealed.extend_from_slice(&content.0);
    sealed.extend_from_slice(signature);
    sealed
}

fn open_sealed(mut sealed: Vec<u8>, content: &Digest) -> Option<Vec<u8>> {
    let (checksum, rest) = sealed.split_at_checked(DIGEST_BYTES)?;
    let whole = blake3::hash(rest).as_bytes() == checksum;
    if !whole || !rest.starts_with(&content.0) {
        return None;
    }
    sealed.drain(..2 * DIGEST_BYTES);
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERHEAD: u64 = 2 * DIGEST_BYTES as u64;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[test]
    fn only_the_signature_of_that_content_comes_out() {
        let directory = tempfile::tempdir().unwrap();
        let signatures = Signatures::open(directory.path(), 1 << 20).unwrap();
        signatures.put(ObjectId(1), &digest(1), b"first").unwrap();
        assert_eq!(signatures.get(ObjectId(1), &digest(1)).unwrap(), b"first");
        signatures.put(ObjectId(1), &digest(2), b"second").unwrap();
        assert_eq!(signatures.get(ObjectId(2), &digest(2)), None);
        assert_eq!(signatures.get(ObjectId(1), &digest(2)).unwrap(), b"second");
        assert_eq!(
            signatures.get(ObjectId(1), &digest(1)),
            None,
            "of an older content"
        );
        assert_eq!(signatures.bytes(), 0, "what is of no use is not kept");
    }

    #[test]
    fn it_survives_a_restart_and_does_not_believe_damage() {
        let directory = tempfile::tempdir().unwrap();
        let signatures = Signatures::open(directory.path(), 1 << 20).unwrap();
        signatures.put(ObjectId(1), &digest(1), b"kept").unwrap();
        signatures.put(ObjectId(2), &digest(2), b"damaged").unwrap();
        drop(signatures);
        let damaged = directory.path().join(format!("{:016x}", 2));
        let mut bytes = fs::read(&damaged).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&damaged, bytes).unwrap();
        fs::write(directory.path().join(format!("{:016x}", 3)), b"short").unwrap();
        fs::write(directory.path().join("0000000000000004.new"), b"half").unwrap();
        let signatures = Signatures::open(directory.path(), 1 << 20).unwrap();
        assert_eq!(signatures.get(ObjectId(1), &digest(1)).unwrap(), b"kept");
        assert_eq!(signatures.get(ObjectId(2), &digest(2)), None);
        assert_eq!(signatures.get(ObjectId(3), &digest(3)), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let each = 100 + OVERHEAD;
        let signatures = Signatures::open(directory.path(), 4 * each).unwrap();
        for number in 0..4 {
            signatures.put(ObjectId(number), &digest(1), &[0; 100]).unwrap();
        }
        assert!(signatures.get(ObjectId(0), &digest(1)).is_some());
        signatures.put(ObjectId(4), &digest(1), &[0; 100]).unwrap();
        let here = |number| signatures.get(ObjectId(number), &digest(1)).is_some();
        assert!(here(0) && !here(1) && here(2) && here(3) && here(4));
        assert_eq!(signatures.bytes(), 4 * each);
        // One that would push out too much of the rest.
        signatures.put(ObjectId(0), &digest(2), &[0; 200]).unwrap();
        assert!(!here(0) && here(2));
    }
}
