//! How fast deltas are computed: our engine beside fast_rsync, in one interleaved run. `cargo bench --bench delta`
//!
//! MB are 10^6 bytes. CPU time is that of the whole process, which uses one thread, so that other work on the machine
//! counts little; each engine runs in turn, and the best of the runs is printed. Matching starts from a checked
//! signature and includes its index. Every delta is carried out and compared with its target.
//!
//! `cargo bench --bench delta -- 256` takes 256 MiB instead of 64.

use driftless::engine::delta::fast_rsync::{self, Segments};
use driftless::engine::delta::{
    Index, Matcher, RangeDelta, Signature, SignatureBuilder, SignatureOptions, StrongKind,
};
use driftless_protocol::message::DeltaPart;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

const RUNS: usize = 5;
const EDITS: usize = 100;
/// How much is handed to a matcher at a time.
const PIECE_BYTES: usize = 4 << 20;

/// xorshift64: as good as random to a matcher, and the same in every run.
fn noise(bytes: usize, mut seed: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        out.extend_from_slice(&seed.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// In turn an insertion of 40 bytes, a removal of 33 and an overwrite of 100, evenly spread.
fn edited(basis: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(basis.len() + 40 * EDITS);
    for (number, piece) in basis.chunks(basis.len().div_ceil(EDITS)).enumerate() {
        let fresh = noise(100, number as u64 + 1);
        match number % 3 {
            0 => {
                out.extend_from_slice(&fresh[..40]);
                out.extend_from_slice(piece);
            }
            1 => out.extend_from_slice(&piece[33..]),
            _ => {
                out.extend_from_slice(&fresh);
                out.extend_from_slice(&piece[100..]);
            }
        }
    }
    out
}

/// Two hundred pages rewritten in place.
fn pages_rewritten(basis: &[u8]) -> Vec<u8> {
    let mut out = basis.to_vec();
    let places = noise(8 * 200, 99);
    let (places, _) = places.as_chunks::<8>();
    for place in places {
        let place = u64::from_le_bytes(*place);
        let page = place as usize % (basis.len() / 4096) * 4096;
        out[page..page + 4096].copy_from_slice(&noise(4096, place | 1));
    }
    out
}

/// Blocks of two kinds that differ and have equal sums under any polynomial: the Thue-Morse sequence.
fn colliding(bytes: usize, block: usize, turned: bool) -> Vec<u8> {
    let byte = |at: usize| {
        let sequence = ((at % block) as u32).count_ones() & 1;
        let kind = (at / block) as u32 & 1 ^ u32::from(turned);
        (sequence ^ kind) as u8
    };
    (0..bytes).map(byte).collect()
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn timed<T>(best: &mut Duration, work: impl FnOnce() -> T) -> T {
    let began = cpu_time();
    let made = work();
    *best = (*best).min(cpu_time().saturating_sub(began));
    made
}

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn sign(basis: &[u8], options: &SignatureOptions) -> Vec<u8> {
    let mut builder = SignatureBuilder::new(basis.len() as u64, options).expect("the signature fits");
    basis.chunks(PIECE_BYTES).for_each(|piece| builder.push(piece));
    builder.finish().expect("the length is right").signature
}

fn sign_by_fast_rsync(basis: &[u8], block: u32) -> Vec<u8> {
    let mut builder = fast_rsync::SignatureBuilder::with_block(basis.len() as u64, block).expect("it fits");
    basis.chunks(builder.step()).for_each(|piece| builder.push(piece));
    builder.finish()
}

fn matched(index: &Index, target: &[u8]) -> Vec<RangeDelta> {
    let mut matcher = Matcher::new(index);
    let mut ranges = Vec::new();
    for piece in target.chunks(PIECE_BYTES) {
        matcher.push(piece);
        ranges.append(&mut matcher.ranges());
    }
    ranges.append(&mut matcher.finish());
    ranges
}

fn literal_bytes(what: &str, basis: &[u8], target: &[u8], ranges: &[RangeDelta]) -> usize {
    let mut rebuilt = Vec::with_capacity(target.len());
    let mut sum = 0;
    for range in ranges {
        let mut rest = &range.literals[..];
        sum += rest.len();
        for part in &range.parts {
            match *part {
                DeltaPart::Copy { offset, length } => {
                    rebuilt.extend_from_slice(&basis[offset as usize..][..length as usize]);
                }
                DeltaPart::Literal { length } => {
                    let (now, later) = rest.split_at(length as usize);
                    rebuilt.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }
    assert!(rebuilt == target, "{what}: the delta does not make the target");
    sum
}

struct Case<'a> {
    what: &'a str,
    basis: &'a [u8],
    target: &'a [u8],
}

/// One line: both kinds of our hashes and fast_rsync, in turn.
fn measure(case: &Case<'_>, block: u64) {
    let Case { what, basis, target } = *case;
    let options = |kind| SignatureOptions {
        kind,
        block_bytes: Some(block),
        ..SignatureOptions::exchanged([5; 32])
    };
    let keyed = sign(basis, &options(StrongKind::KeyedBlake3));
    let seeded = sign(basis, &options(StrongKind::SeededXxh3));
    // fast_rsync's weak sums lose bits at powers of two.
    let theirs = sign_by_fast_rsync(basis, block as u32 + 8);
    let theirs = fast_rsync::parse_signature(theirs).expect("it is usable");
    let mut times = [Duration::MAX; 3];
    let mut made = [const { Vec::new() }; 3];
    for _ in 0..RUNS {
        for (at, signature) in [&keyed, &seeded].into_iter().enumerate() {
            let signature = Signature::parse(signature.clone()).expect("it is usable");
            made[at] = timed(&mut times[at], || matched(&Index::new(signature), target));
        }
        made[2] = timed(&mut times[2], || {
            let mut segments = Segments::new(&theirs);
            let mut ranges = segments.push(target);
            ranges.append(&mut segments.finish());
            ranges
        });
    }
    let [ours, local, other] = times.map(|time| rate(target.len(), time));
    let literals = made.map(|ranges| literal_bytes(what, basis, target, &ranges));
    println!(
        "{what:<26} {ours:>7.0} {:>6.1}x {local:>7.0} {:>6.1}x {other:>7.0}   {:>11} {:>11}",
        ours / other,
        local / other,
        literals[0],
        literals[2]
    );
}

fn measure_signatures(basis: &[u8], block: u64) {
    let mut times = [Duration::MAX; 5];
    let options = |kind, digest| SignatureOptions {
        kind,
        digest,
        block_bytes: Some(block),
        ..SignatureOptions::exchanged([5; 32])
    };
    for _ in 0..RUNS {
        timed(&mut times[0], || {
            sign(basis, &options(StrongKind::KeyedBlake3, true))
        });
        timed(&mut times[1], || {
            sign(basis, &options(StrongKind::SeededXxh3, true))
        });
        timed(&mut times[2], || {
            sign(basis, &options(StrongKind::SeededXxh3, false))
        });
        timed(&mut times[3], || sign_by_fast_rsync(basis, block as u32 + 8));
        timed(&mut times[4], || {
            let made = sign_by_fast_rsync(basis, block as u32 + 8);
            (made, blake3::hash(basis))
        });
    }
    let names = [
        "keyed BLAKE3 and digest",
        "XXH3 and digest",
        "XXH3",
        "fast_rsync",
        "fast_rsync and digest",
    ];
    for (what, time) in names.into_iter().zip(times) {
        println!("signature, {what:<26} {:>7.0} MB/s", rate(basis.len(), time));
    }
}

fn main() {
    let wanted = std::env::args().find_map(|argument| argument.parse::<usize>().ok());
    let bytes = wanted.unwrap_or(64) << 20;
    let block = driftless::engine::delta::block_bytes(bytes as u64, StrongKind::KeyedBlake3, 64 << 20)
        .expect("a block size");
    println!(
        "{} MiB, blocks of {block} bytes (fast_rsync: 8 more)",
        bytes >> 20
    );
    println!("MB/s of CPU time, best of {RUNS} interleaved runs\n");
    let basis = noise(bytes, 0x9e37_79b9_7f4a_7c15);
    measure_signatures(&basis, block);
    println!(
        "\n{:<26} {:>7} {:>7} {:>7} {:>7} {:>7}   {:>11} {:>11}",
        "matching", "BLAKE3", "", "XXH3", "", "fast_r.", "literals", "fast_rsync"
    );
    let case = |what, basis: &[u8], target: &[u8]| measure(&Case { what, basis, target }, block);
    case("the same bytes", &basis, &basis);
    case("100 small edits", &basis, &edited(&basis));
    case("200 pages rewritten", &basis, &pages_rewritten(&basis));
    case("nothing matches", &basis, &noise(bytes, 0x0123_4567_89ab_cdef));
    let period = |period: usize| -> Vec<u8> { noise(period, 3).into_iter().cycle().take(bytes).collect() };
    case("periodic, shifted", &period(100), &period(100)[37..]);
    case("periodic, nothing matches", &period(100), &period(101));
    let (left, right) = (
        colliding(bytes, block as usize, false),
        colliding(bytes, block as usize, true),
    );
    case("collisions, other order", &left, &right);
    case(
        "collisions, half matches",
        &left[..block as usize],
        &right[..bytes / 4],
    );
}
