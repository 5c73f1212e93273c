//! Records of files that have arrived in part: where the staged file stands, and the sums of its complete spans.
//!
//! One small file for an object. While a transfer runs, a line is appended for each span that is complete, unflushed; a
//! record that was left *open* (the process was killed, the machine went down) is a list of claims, each of which has to
//! be checked against the staged file's bytes. A transfer that is cut off *closes* its record, with the stamp of the
//! staged file and the boot in which that was: as long as both are the same, nothing was written since, and the claims
//! hold unchecked. Nothing else depends on a record; one that is missing or damaged costs a transfer from the start.
//!
//! Bytes, integers big endian: `drpart` and version 1 (8 in all), 1 closed, 8 directory, 1 and the staged file's name; then for
//! each span 8 number, 4 length, 32 sum; if closed, 16 boot, 64 stamp, 32 BLAKE3 of everything before.

use super::record::{STAMP_BYTES, Stamp};
use crate::engine::span_sums::{SpanSum, SpanSums};
use driftless_protocol::message::Place;
use driftless_protocol::{Name, ObjectId};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Staged files that are kept, of one module path.
const PARTIALS_MAX: usize = 64;
/// How long one is kept that nobody comes back to.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

const MAGIC: &[u8; 8] = b"drpart\0\x01";
const BOOT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
const SPAN_RECORD_BYTES: usize = 8 + 4 + 32;
const TRAILER_BYTES: usize = BOOT_BYTES + STAMP_BYTES + DIGEST_BYTES;

/// The records of one module path.
#[derive(Debug)]
pub struct Partials {
    directory: PathBuf,
    /// The present boot of this machine; unknown, no closed record is believed.
    boot: Option<[u8; BOOT_BYTES]>,
    known: Mutex<HashMap<ObjectId, Known>>,
}

#[derive(Debug)]
struct Known {
    /// Where the staged file stands; none before a claimed one has begun.
    place: Option<Place>,
    is_claimed: bool,
    since: SystemTime,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Where the staged file stands.
    pub place: Place,
    /// The spans that were complete.
    pub spans: SpanSums,
    /// The staged file's stamp when the record was closed, in this boot. Without it, every span is to be checked.
    pub stamp: Option<Stamp>,
}

/// The right to work on the staged file of an object; dropping it gives the right up and leaves the record.
#[derive(Debug)]
pub struct PartialClaim {
    partials: Arc<Partials>,
    object: ObjectId,
}

/// An open record.
#[derive(Debug)]
pub struct PartialLog {
    claim: PartialClaim,
    place: Place,
    file: Mutex<File>,
}

impl Partials {
    /// Opens the records in a directory, which is made if it is missing. `boot` names the present boot of this machine.
    pub fn open(directory: &Path, boot: Option<[u8; BOOT_BYTES]>) -> io::Result<Partials> {
        fs::create_dir_all(directory)?;
        let mut known = HashMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let object = entry.file_name().to_str().and_then(object_of);
            let place = fs::read(&path).ok().and_then(|bytes| Some(head(&bytes)?.1));
            match object.zip(place) {
                Some((object, place)) => {
                    let since = entry.metadata()?.modified()?;
                    let place = Some(place);
                    let is_claimed = false;
                    known.insert(
                        object,
                        Known {
                            place,
                            is_claimed,
                            since,
                        },
                    );
                }
                None => fs::remove_file(path)?,
            }
        }
        Ok(Partials {
            directory: directory.to_owned(),
            boot,
            known: Mutex::new(known),
        })
    }

    /// The right to keep the staged file of an object, and to go on with the one that was kept. None while somebody else
    /// has it, or if too many are kept.
    pub fn claim(self: &Arc<Self>, object: ObjectId) -> Option<PartialClaim> {
        let mut known = self.lock();
        let is_full = known.len() >= PARTIALS_MAX;
        match known.get_mut(&object) {
            Some(known) if known.is_claimed => return None,
            Some(known) => known.is_claimed = true,
            None if is_full => return None,
            None => {
                let fresh = Known {
                    place: None,
                    is_claimed: true,
                    since: SystemTime::now(),
                };
                known.insert(object, fresh);
            }
        }
        let partials = self.clone();
        Some(PartialClaim { partials, object })
    }

    /// Whether there is a record of an object.
    pub fn contains(&self, object: ObjectId) -> bool {
        self.lock().contains_key(&object)
    }

    /// All records, and where their staged files stand.
    pub fn places(&self) -> Vec<(ObjectId, Place)> {
        let known = self.lock();
        let places = known
            .iter()
            .filter_map(|(&object, known)| Some((object, known.place.clone()?)));
        places.collect()
    }

    /// Those that nobody came back to for a week, and that nobody works on.
    pub fn stale(&self, now: SystemTime) -> Vec<ObjectId> {
        let is_old = |known: &Known| now.duration_since(known.since).is_ok_and(|age| age > AGE_MAX);
        let known = self.lock();
        let stale = known
            .iter()
            .filter(|(_, known)| !known.is_claimed && is_old(known));
        stale.map(|(&object, _)| object).collect()
    }

    /// Forgets a record; says where the staged file stands, which is the caller's to remove.
    pub fn forget(&self, object: ObjectId) -> Option<Place> {
        let mut known = self.lock();
        let entry = known.get_mut(&object)?;
        let place = entry.place.take();
        if !entry.is_claimed {
            known.remove(&object);
        }
        if place.is_some() {
            let _ = fs::remove_file(self.path(object));
        }
        place
    }

    fn path(&self, object: ObjectId) -> PathBuf {
        self.directory.join(format!("{:016x}", object.0))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialClaim {
    /// Where the kept file stands, if there is one.
    pub fn place(&self) -> Option<Place> {
        self.partials.lock().get(&self.object)?.place.clone()
    }

    /// What was kept.
    pub fn load(&self) -> Option<Partial> {
        let bytes = fs::read(self.partials.path(self.object)).ok()?;
        parse(&bytes, self.partials.boot.as_ref())
    }

    /// Forgets what was kept.
    pub fn forget(&self) {
        self.partials.forget(self.object);
    }

    /// Begins the record of a staged file, in which these spans are known to be right.
    pub fn begin(self, place: Place, spans: &SpanSums) -> io::Result<PartialLog> {
        let mut bytes = head_bytes(false, &place);
        for (span, sum) in spans.iter() {
            bytes.extend(span_bytes(span, &sum));
        }
        let path = self.partials.path(self.object);
        let mut file = File::create(path)?;
        if let Some(known) = self.partials.lock().get_mut(&self.object) {
            (known.place, known.since) = (Some(place.clone()), SystemTime::now());
        }
        file.write_all(&bytes)?;
        let file = Mutex::new(file);
        Ok(PartialLog {
            claim: self,
            place,
            file,
        })
    }
}

impl Drop for PartialClaim {
    fn drop(&mut self) {
        let mut known = self.partials.lock();
        if let Some(entry) = known.get_mut(&self.object) {
            entry.is_claimed = false;
            if entry.place.is_none() {
                known.remove(&self.object);
            }
        }
    }
}

impl PartialLog {
    /// Notes that a span is complete. What cannot be noted is sent again.
    pub fn note(&self, span: u64, sum: &SpanSum) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(&span_bytes(span, sum));
    }

    /// Closes the record of a staged file that is left alone now: these are its spans, this is its stamp.
    pub fn close(self, spans: &SpanSums, stamp: Option<&Stamp>) {
        let path = self.claim.partials.path(self.claim.object);
        let is_known = self.claim.place().as_ref() == Some(&self.place);
        if !is_known {
            // Forgotten meanwhile.
            return;
        }
        let (Some(stamp), Some(boot)) = (stamp, &self.claim.partials.boot) else {
            return;
        };
        let mut bytes = head_bytes(true, &self.place);
        for (span, sum) in spans.iter() {
            bytes.extend(span_bytes(span, &sum));
        }
        bytes.extend(boot);
        bytes.extend(stamp);
        let digest = blake3::hash(&bytes);
        bytes.extend(digest.as_bytes());
        let aside = path.with_extension("new");
        if let Err(error) = fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, &path)) {
            tracing::debug!("cannot note what was kept of a file: {error}");
        }
    }

    /// Forgets the record.
    pub fn forget(self) {
        self.claim.forget();
    }
}

fn object_of(name: &str) -> Option<ObjectId> {
    let is_plain = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain
        .then(|| u64::from_str_radix(name, 16).ok().map(ObjectId))
        .flatten()
}

fn head_bytes(is_closed: bool, place: &Place) -> Vec<u8> {
    let name = place.name.as_bytes();
    let mut bytes = MAGIC.to_vec();
    bytes.push(is_closed.into());
    bytes.extend(place.directory.0.to_be_bytes());
    bytes.push(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
    bytes.extend(name);
    bytes
}

fn span_bytes(span: u64, sum: &SpanSum) -> Vec<u8> {
    let mut bytes = span.to_be_bytes().to_vec();
    bytes.extend(sum.bytes.to_be_bytes());
    bytes.extend(sum.sum);
    bytes
}

/// Whether the record is closed, the place, and the rest.
fn head(bytes: &[u8]) -> Option<(bool, Place, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let ([closed], rest) = rest.split_first_chunk()?;
    let (directory, rest) = rest.split_first_chunk()?;
    let ([length], rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let place = Place {
        directory: ObjectId(u64::from_be_bytes(*directory)),
        name: Name::new(name).ok()?,
    };
    Some((*closed == 1, place, rest))
}

fn parse(bytes: &[u8], boot: Option<&[u8; BOOT_BYTES]>) -> Option<Partial> {
    let (is_closed, place, mut rest) = head(bytes)?;
    let mut stamp = None;
    if is_closed {
        let (whole, digest) = bytes.split_last_chunk::<DIGEST_BYTES>()?;
        if blake3::hash(whole).as_bytes() != digest {
            return None;
        }
        let (spans, trailer) = rest.split_last_chunk::<TRAILER_BYTES>()?;
        rest = spans;
        let (then, at) = trailer.split_first_chunk::<BOOT_BYTES>()?;
        stamp = (boot == Some(then)).then(|| at.first_chunk().copied()).flatten();
    }
    // The last line of an open record may be cut off. A later line of a span counts.
    let (lines, _) = rest.as_chunks::<SPAN_RECORD_BYTES>();
    let span = |line: &[u8; SPAN_RECORD_BYTES]| {
        let (span, rest) = line.split_first_chunk()?;
        let (bytes, sum) = rest.split_first_chunk()?;
        let bytes = u32::from_be_bytes(*bytes);
        let sum = sum.try_into().ok()?;
        Some((u64::from_be_bytes(*span), SpanSum { bytes, sum }))
    };
    Some(Partial {
        place,
        spans: lines.iter().filter_map(span).collect(),
        stamp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Option<[u8; BOOT_BYTES]> = Some([7; BOOT_BYTES]);
    const STAMP: Stamp = [3; STAMP_BYTES];

    fn place(name: &str) -> Place {
        Place {
            directory: ObjectId(5),
            name: Name::new(name.as_bytes()).unwrap(),
        }
    }

    fn spans(count: u64) -> SpanSums {
        let sum = |span| SpanSum {
            bytes: 1 << 20,
            sum: [span as u8; 32],
        };
        (0..count).map(|span| (span, sum(span))).collect()
    }

    fn open(directory: &Path, boot: Option<[u8; BOOT_BYTES]>) -> Arc<Partials> {
        Arc::new(Partials::open(directory, boot).unwrap())
    }

    #[test]
    fn an_open_record_is_a_list_of_claims() {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path(), BOOT)
            .claim(ObjectId(9))
            .unwrap()
            .begin(place("a"), &spans(1))
            .unwrap();
        for (span, sum) in spans(3).iter().skip(1) {
            log.note(span, &sum);
        }
        // As after a kill: nothing was closed, and the last line is torn.
        let path = directory.path().join(format!("{:016x}", 9));
        let torn = fs::read(&path).unwrap();
        let after = open(directory.path(), BOOT);
        fs::write(&path, &torn[..torn.len() - 1]).unwrap();
        let found = after.claim(ObjectId(9)).unwrap().load().unwrap();
        let wanted = Partial {
            place: place("a"),
            spans: spans(2),
            stamp: None,
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_closed_record_counts_in_its_boot_and_unharmed_only() {
        let directory = tempfile::tempdir().unwrap();
        let begin = || {
            let claim = open(directory.path(), BOOT).claim(ObjectId(9)).unwrap();
            claim.begin(place("a"), &spans(0)).unwrap()
        };
        begin().close(&spans(4), Some(&STAMP));
        let load = |boot| open(directory.path(), boot).claim(ObjectId(9)).unwrap().load();
        let same = load(BOOT).unwrap();
        assert_eq!((same.spans, same.stamp), (spans(4), Some(STAMP)));
        for boot in [None, Some([8; BOOT_BYTES])] {
            let other = load(boot).unwrap();
            assert_eq!((other.spans, other.stamp), (spans(4), None));
        }
        let path = directory.path().join(format!("{:016x}", 9));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(load(BOOT), None);
    }

    #[test]
    fn one_at_a_time_and_not_without_end() {
        let directory = tempfile::tempdir().unwrap();
        let partials = open(directory.path(), BOOT);
        let claim = partials.claim(ObjectId(1)).unwrap();
        assert!(partials.claim(ObjectId(1)).is_none(), "it is in use");
        drop(claim);
        assert!(!partials.contains(ObjectId(1)), "nothing was begun");
        for object in 0..PARTIALS_MAX as u64 {
            let claim = partials.claim(ObjectId(object)).unwrap();
            let log = claim.begin(place("a"), &spans(0)).unwrap();
            log.close(&spans(1), Some(&STAMP));
        }
        assert!(partials.claim(ObjectId(1_000)).is_none(), "too many");
        assert_eq!(partials.forget(ObjectId(3)), Some(place("a")));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), PARTIALS_MAX - 1);
        assert!(partials.claim(ObjectId(1_000)).is_some());
        let now = SystemTime::now();
        assert!(partials.stale(now).is_empty());
        assert_eq!(partials.stale(now + 2 * AGE_MAX).len(), PARTIALS_MAX - 1);
    }

    #[test]
    fn what_was_forgotten_meanwhile_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let partials = open(directory.path(), BOOT);
        let log = partials
            .claim(ObjectId(1))
            .unwrap()
            .begin(place("a"), &spans(0))
            .unwrap();
        partials.forget(ObjectId(1));
        log.close(&spans(1), Some(&STAMP));
        assert!(!partials.contains(ObjectId(1)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        fs::write(directory.path().join("0000000000000009"), b"damaged").unwrap();
        assert!(!open(directory.path(), BOOT).contains(ObjectId(9)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
