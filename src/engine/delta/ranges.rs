//! Deltas cut into ranges that fit the wire.

use super::DeltaFault;
use driftless_protocol::limits::{DELTA_PARTS_MAX, RANGE_BYTES_MAX};
use driftless_protocol::message::DeltaPart;

/// Takes a delta as it is found, from the target's beginning to its end.
pub trait Output {
    /// `length` bytes of the basis from `offset` on.
    fn copy(&mut self, offset: u64, length: u64);
    /// Bytes that the basis does not have.
    fn literal(&mut self, bytes: &[u8]);
}

/// One range of the target, as copies and literals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeDelta {
    /// Length of the range in the target.
    pub length: u32,
    /// Its parts, in order.
    pub parts: Vec<DeltaPart>,
    /// The literals of all parts, one after the other.
    pub literals: Vec<u8>,
}

impl RangeDelta {
    /// Whether nothing of it is in the basis: its literals are the range.
    pub fn is_literal(&self) -> bool {
        self.literals.len() == self.length as usize
    }

    /// The same as ranges of one part each, for literals that do not fit a range together with copies.
    pub fn into_single_parts(self) -> Vec<RangeDelta> {
        let mut literals = &self.literals[..];
        let alone = |part: &DeltaPart| {
            let (length, own) = match *part {
                DeltaPart::Copy { length, .. } => (length, &[][..]),
                DeltaPart::Literal { length } => {
                    let (own, later) = literals.split_at(length as usize);
                    literals = later;
                    (length, own)
                }
            };
            RangeDelta {
                length,
                parts: vec![*part],
                literals: own.to_vec(),
            }
        };
        self.parts.iter().map(alone).collect()
    }
}

/// Collects copies and literals into ranges; merges adjacent copies.
#[derive(Debug, Default)]
pub struct RangeCutter {
    done: Vec<RangeDelta>,
    current: RangeDelta,
}

impl RangeCutter {
    fn room(&mut self) -> u32 {
        if self.current.length as usize == RANGE_BYTES_MAX || self.current.parts.len() == DELTA_PARTS_MAX {
            self.done.push(std::mem::take(&mut self.current));
        }
        RANGE_BYTES_MAX as u32 - self.current.length
    }

    /// The ranges that are complete.
    pub fn take(&mut self) -> Vec<RangeDelta> {
        std::mem::take(&mut self.done)
    }

    /// All that is left.
    pub fn finish(mut self) -> Vec<RangeDelta> {
        if self.current.length > 0 {
            self.done.push(self.current);
        }
        self.done
    }
}

impl Output for RangeCutter {
    fn copy(&mut self, mut offset: u64, mut length: u64) {
        while length > 0 {
            let take = u64::from(self.room()).min(length) as u32;
            match self.current.parts.last_mut() {
                Some(DeltaPart::Copy {
                    offset: start,
                    length: so_far,
                }) if *start + u64::from(*so_far) == offset => {
                    *so_far += take;
                }
                _ => self.current.parts.push(DeltaPart::Copy { offset, length: take }),
            }
            self.current.length += take;
            offset += u64::from(take);
            length -= u64::from(take);
        }
    }

    fn literal(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = (self.room() as usize).min(bytes.len());
            match self.current.parts.last_mut() {
                Some(DeltaPart::Literal { length }) => *length += take as u32,
                _ => self
                    .current
                    .parts
                    .push(DeltaPart::Literal { length: take as u32 }),
            }
            self.current.length += take as u32;
            self.current.literals.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
        }
    }
}

/// Checks a peer's delta of a range or a file before any of it is carried out.
pub fn check_parts(
    parts: &[DeltaPart],
    length: u64,
    literal_bytes: usize,
    basis_bytes: u64,
) -> Result<(), DeltaFault> {
    let (mut made, mut literals) = (0u64, 0u64);
    for part in parts {
        match *part {
            DeltaPart::Copy { offset, length } => {
                if offset
                    .checked_add(u64::from(length))
                    .is_none_or(|end| end > basis_bytes)
                {
                    let length = u64::from(length);
                    return Err(DeltaFault::CopyPastBasis {
                        offset,
                        length,
                        basis_bytes,
                    });
                }
                made += u64::from(length);
            }
            DeltaPart::Literal { length } => {
                made += u64::from(length);
                literals += u64::from(length);
            }
        }
    }
    if made != length {
        return Err(DeltaFault::Length { made, wanted: length });
    }
    if literals != literal_bytes as u64 {
        return Err(DeltaFault::Length {
            made: literals,
            wanted: literal_bytes as u64,
        });
    }
    Ok(())
}
