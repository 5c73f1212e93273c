//! How fast deltas are computed: the signature of a basis, a target that is nearly the basis, and one that has nothing
//! in common with it. `cargo bench --bench delta`
//!
//! MB are 10^6 bytes. CPU time is that of the whole process, which uses one thread, so that other work on the machine
//! does not count; the best of three runs is printed. Every delta is carried out and compared with its target.

use driftless::engine::delta::{SEGMENT_BYTES, SignatureBuilder, block_bytes, diff, parse_signature};
use driftless_protocol::message::DeltaPart;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

const BYTES: usize = 64 << 20;
const EDITS: usize = 100;
const RUNS: usize = 3;

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

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The best CPU time of a few runs, and what the last of them made.
fn best<T>(mut work: impl FnMut() -> T) -> (Duration, T) {
    let mut run = || {
        let began = cpu_time();
        let made = work();
        (cpu_time().saturating_sub(began), made)
    };
    let mut first = run();
    for _ in 1..RUNS {
        let (time, made) = run();
        first = (first.0.min(time), made);
    }
    first
}

fn print(what: &str, bytes: usize, time: Duration, more: &str) {
    let rate = bytes as f64 / 1e6 / time.as_secs_f64();
    println!("{what:<28} {rate:>8.0} MB/s{more}");
}

fn signature(basis: &[u8]) -> Vec<u8> {
    let mut builder = SignatureBuilder::new(basis.len() as u64).expect("the basis is worth a signature");
    for piece in basis.chunks(builder.step()) {
        builder.push(piece);
    }
    builder.finish()
}

fn measure_diff(what: &str, basis: &[u8], target: &[u8], bytes: &[u8]) {
    let signature = parse_signature(bytes.to_vec()).expect("our own signature is usable");
    let (time, ranges) = best(|| {
        let index = signature.index();
        target
            .chunks(SEGMENT_BYTES)
            .flat_map(|segment| diff(&index, segment).expect("it matches"))
            .collect::<Vec<_>>()
    });
    let mut rebuilt = Vec::with_capacity(target.len());
    let mut literals = 0;
    for range in &ranges {
        let mut rest = &range.literals[..];
        literals += rest.len();
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
    print(
        what,
        target.len(),
        time,
        &format!(", {literals} bytes of literals"),
    );
}

fn main() {
    let basis = noise(BYTES, 0x9e37_79b9_7f4a_7c15);
    println!(
        "{} MiB of noise, blocks of {} bytes, MB/s of CPU time, best of {RUNS}",
        BYTES >> 20,
        block_bytes(BYTES as u64)
    );
    let (time, bytes) = best(|| signature(&basis));
    print(
        "signature",
        basis.len(),
        time,
        &format!(", {} bytes", bytes.len()),
    );
    measure_diff("diff, the same bytes", &basis, &basis, &bytes);
    measure_diff(
        &format!("diff, {EDITS} small edits"),
        &basis,
        &edited(&basis),
        &bytes,
    );
    measure_diff(
        "diff, nothing matches",
        &basis,
        &noise(BYTES, 0x0123_4567_89ab_cdef),
        &bytes,
    );
}
