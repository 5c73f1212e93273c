//! Sums over trees: the additive one that proves "in sync at N", and the per-directory ones that find differences.
//!
//! [`SumState`] is LtHash16 with 1,024 lanes (Bellare and Micciancio 1997; Lewi, Kim, Maykov and Weis, "Securing
//! Update Propagation with Homomorphic Hashing", 2019): every entry is expanded to 1,024 numbers of 16 bits, and a
//! set of entries has the lane-wise sum. Adding or removing one entry costs the same whatever the size of the tree,
//! and the order of changes does not matter.

use driftless_protocol::{EntrySum, Name, ObjectId, TreeSum};

const LANES: usize = 1_024;

/// Length of a stored [`SumState`] in bytes.
pub const SUM_STATE_BYTES: usize = LANES * 2;

/// The running sum of a set of entries.
#[derive(Clone, PartialEq, Eq)]
pub struct SumState(Box<[u16; LANES]>);

/// One entry, as it goes into a sum: its number, its place, and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Element<'a> {
    /// The directory in which it stands; number 0 for the root itself.
    pub directory: ObjectId,
    /// Its name; the word `root` for the root itself.
    pub name: &'a [u8],
    /// Its number.
    pub object: ObjectId,
    /// Its kind, attributes and content.
    pub sum: EntrySum,
}

impl Default for SumState {
    fn default() -> Self {
        SumState(Box::new([0; LANES]))
    }
}

impl std::fmt::Debug for SumState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SumState({})", self.fold())
    }
}

impl SumState {
    /// Adds an entry.
    pub fn add(&mut self, element: &Element<'_>) {
        self.apply(element, u16::wrapping_add);
    }

    /// Takes an entry away that was added before.
    pub fn remove(&mut self, element: &Element<'_>) {
        self.apply(element, u16::wrapping_sub);
    }

    fn apply(&mut self, element: &Element<'_>, combine: impl Fn(u16, u16) -> u16) {
        let mut expanded = [0u8; SUM_STATE_BYTES];
        hash_element(blake3::Hasher::new(), element)
            .finalize_xof()
            .fill(&mut expanded);
        for (lane, bytes) in self.0.iter_mut().zip(expanded.chunks_exact(2)) {
            *lane = combine(*lane, u16::from_le_bytes([bytes[0], bytes[1]]));
        }
    }

    /// The sum in 32 bytes, to send and to compare.
    pub fn fold(&self) -> TreeSum {
        TreeSum(blake3::hash(&self.to_bytes()).into())
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// Reads stored bytes; `None` if they are not [`SUM_STATE_BYTES`] long.
    pub fn from_bytes(bytes: &[u8]) -> Option<SumState> {
        if bytes.len() != SUM_STATE_BYTES {
            return None;
        }
        let mut state = SumState::default();
        for (lane, bytes) in state.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        Some(state)
    }
}

/// Length-prefixed fields, so that no two elements share an input.
fn hash_element(mut hasher: blake3::Hasher, element: &Element<'_>) -> blake3::Hasher {
    hasher.update(&element.directory.0.to_be_bytes());
    hasher.update(&(element.name.len() as u16).to_be_bytes());
    hasher.update(element.name);
    hasher.update(&element.object.0.to_be_bytes());
    hasher.update(&element.sum.0);
    hasher
}

/// The sum over everything below one directory: entries go in in byte order of their names.
#[derive(Debug)]
pub struct BelowSum {
    hasher: blake3::Hasher,
    entries: u64,
}

impl Default for BelowSum {
    fn default() -> Self {
        BelowSum {
            hasher: blake3::Hasher::new(),
            entries: 0,
        }
    }
}

impl BelowSum {
    /// The next entry, with what is below it (zero for anything but a directory).
    pub fn push(&mut self, name: &Name, object: ObjectId, sum: EntrySum, below: TreeSum, entries: u64) {
        let element = Element {
            directory: ObjectId(0),
            name: name.as_bytes(),
            object,
            sum,
        };
        let hasher = std::mem::take(&mut self.hasher);
        self.hasher = hash_element(hasher, &element);
        self.hasher.update(&below.0);
        self.entries += 1 + entries;
    }

    /// The sum, and the number of entries below.
    pub fn finish(self) -> (TreeSum, u64) {
        let sum = if self.entries == 0 {
            TreeSum::default()
        } else {
            TreeSum(self.hasher.finalize().into())
        };
        (sum, self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(n: u64, name: &[u8]) -> Element<'_> {
        Element {
            directory: ObjectId(n / 4),
            name,
            object: ObjectId(n),
            sum: EntrySum([n as u8; 32]),
        }
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_removal_undoes(
            numbers in prop::collection::btree_set(2u64..200, 1..30),
            extra in 200u64..300,
        ) {
            let mut forwards = SumState::default();
            numbers.iter().for_each(|&n| forwards.add(&element(n, b"x")));
            let mut backwards = SumState::default();
            backwards.add(&element(extra, b"gone"));
            numbers.iter().rev().for_each(|&n| backwards.add(&element(n, b"x")));
            prop_assert_ne!(forwards.fold(), backwards.fold());
            backwards.remove(&element(extra, b"gone"));
            prop_assert_eq!(&forwards, &backwards);
            prop_assert_eq!(SumState::from_bytes(&forwards.to_bytes()), Some(backwards));
        }
    }

    #[test]
    fn each_field_counts() {
        let base = element(9, b"n");
        let others = [
            Element {
                directory: ObjectId(8),
                ..base
            },
            Element { name: b"m", ..base },
            Element {
                object: ObjectId(8),
                ..base
            },
            Element {
                sum: EntrySum([1; 32]),
                ..base
            },
        ];
        let sum = |e: &Element<'_>| {
            let mut state = SumState::default();
            state.add(e);
            state.fold()
        };
        for other in &others {
            assert_ne!(sum(&base), sum(other), "{other:?}");
        }
    }
}
