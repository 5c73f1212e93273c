//! Randomness that follows from one number, so that a failure can be run again.

use std::path::PathBuf;

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly small, sometimes large enough for offers and deltas.
    pub fn bytes(&mut self) -> Vec<u8> {
        let size = match self.below(20) {
            0 => 0,
            1 => 200_000 + self.below(400_000),
            2..=4 => 20_000 + self.below(60_000),
            _ => 1 + self.below(3_000),
        };
        self.exactly(size)
    }

    /// So many bytes that no compression makes smaller.
    pub fn exactly(&mut self, size: usize) -> Vec<u8> {
        let mut out = vec![0; size];
        blake3::Hasher::new()
            .update(&self.next().to_le_bytes())
            .finalize_xof()
            .fill(&mut out);
        out
    }

    pub fn pick(&mut self, from: &[PathBuf]) -> Option<PathBuf> {
        from.get(self.below(from.len())).cloned()
    }
}
