//! The rolling sum: a polynomial over the bytes of a window, modulo 2^64, of which only the upper bits are used.
//!
//! `sum(b0..bn) = b0 B^n + b1 B^(n-1) + .. + b(n-1) B`, with an odd base `B` that is drawn with the signature's key.
//! One step of the window is two multiplications and an addition, and only one multiplication waits for the step
//! before; the last byte is multiplied as well, because the lower bits of such a sum say little (the lowest of all is
//! the parity of the bytes). Compared on the same data: a cyclic polynomial (buzhash) rolls at the same speed but
//! gives zero for every constant block whose size is a power of two, and rsync's two sums take longer to mix into a
//! key and hold 34 useful bits at 1 KiB blocks.
//!
//! Whoever knows that modulus can write blocks of equal sum for any base (the Thue-Morse sequence). That is no way to
//! slow the search down: what a false hit may cost is bounded in the matcher, not here.

use super::index::Filter;

/// The sum's parameters for one block size.
#[derive(Debug, Clone)]
pub struct Rolling {
    /// `B^0` to `B^8`.
    powers: [u64; 9],
    /// What the first byte of a full window is multiplied with: `B^n`.
    leaving: u64,
}

impl Rolling {
    /// For windows of `block` bytes; the base is made of any number.
    pub fn new(seed: u64, block: u64) -> Rolling {
        // 5 modulo 8 has the longest period of all bases.
        let base = seed & !7 | 5;
        let mut powers = [1u64; 9];
        for at in 1..powers.len() {
            powers[at] = powers[at - 1].wrapping_mul(base);
        }
        let mut leaving = 1u64;
        let (mut square, mut left) = (base, block);
        while left > 0 {
            if left & 1 == 1 {
                leaving = leaving.wrapping_mul(square);
            }
            square = square.wrapping_mul(square);
            left >>= 1;
        }
        Rolling { powers, leaving }
    }

    /// The sum of what `sum` stands for, followed by `bytes`. An empty window has the sum 0.
    pub fn extend(&self, mut sum: u64, bytes: &[u8]) -> u64 {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let mut own = 0u64;
            for (at, &byte) in eight.iter().enumerate() {
                own = own.wrapping_add(u64::from(byte).wrapping_mul(self.powers[8 - at]));
            }
            sum = sum.wrapping_mul(self.powers[8]).wrapping_add(own);
        }
        for &byte in rest {
            sum = sum.wrapping_add(u64::from(byte)).wrapping_mul(self.powers[1]);
        }
        sum
    }

    /// Moves a full window by one byte.
    #[inline(always)]
    pub fn roll(&self, sum: u64, out: u8, into: u8) -> u64 {
        self.exchange(sum, out, into).wrapping_mul(self.powers[1])
    }

    /// One byte leaves and one comes, without the multiplication that moves the window.
    #[inline(always)]
    fn exchange(&self, sum: u64, out: u8, into: u8) -> u64 {
        sum.wrapping_add(u64::from(into))
            .wrapping_sub(u64::from(out).wrapping_mul(self.leaving))
    }

    /// Moves a full window as long as its sums do not pass the filter. Returns how many positions were passed over,
    /// a multiple of eight, and the sum there: one of the next eight passes, or fewer than eight bytes are left.
    ///
    /// This loop is where time goes when nothing matches. Two steps at a time halve what has to wait for the
    /// multiplication before; a branch for eight positions is cheaper than noting which of them passed, as few do.
    #[inline(never)]
    pub fn pass_over(&self, filter: &Filter, outs: &[u8], ins: &[u8], mut sum: u64) -> (usize, u64) {
        let mut passed = 0;
        for (outs, ins) in outs.as_chunks::<8>().0.iter().zip(ins.as_chunks::<8>().0) {
            let (start, mut any) = (sum, 0);
            for at in [0, 2, 4, 6] {
                any |= filter.bit(sum);
                let first = self.exchange(sum, outs[at], ins[at]);
                any |= filter.bit(first.wrapping_mul(self.powers[1]));
                let second = self.exchange(0, outs[at + 1], ins[at + 1]);
                sum = first
                    .wrapping_mul(self.powers[2])
                    .wrapping_add(second.wrapping_mul(self.powers[1]));
            }
            if any != 0 {
                return (passed, start);
            }
            passed += 8;
        }
        (passed, sum)
    }
}
