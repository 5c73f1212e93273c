//! Finding in a target what a basis has: the delta.
//!
//! The matcher goes through the target once. Where a block of the basis was found, the next block is expected right
//! behind it, and at the very start the blocks of the basis where the basis has them: as long as that holds, data are
//! hashed and not searched (`Matcher::follow`). A block that was overwritten in place is stepped over when the one
//! behind it is where it was. Otherwise the rolling sum is moved byte by byte (`Matcher::search`).
//!
//! Memory: the caller's piece, and a carry of a few blocks for what a piece leaves undecided, so that the place where
//! pieces are cut does not show in the delta.
//!
//! **Cost.** Every byte of a target is rolled over once and hashed a bounded number of times, whatever basis and target
//! are. A block that is copied pays for the hashes of the expected blocks that were not there (three at most). A block
//! that looks right by its rolling sum and is not is charged to a *credit* of the bytes that went by; without credit
//! only expected blocks are compared. Honest data never use it up: see [`super::signature::Shape::new`].

use super::index::{Filter, Index};
use super::ranges::{Output, RangeCutter, RangeDelta};

/// Pieces below this size are put together before they are matched.
const PIECE_BYTES_MIN: usize = 256 << 10;

/// Blocks that may be hashed for nothing before any credit was earned.
const CREDIT_BLOCKS: u64 = 16;

/// Fewer bytes than that are not worth a copy of their own in the middle of literals.
const COPY_BYTES_MIN: usize = 32;

/// What the work of a matcher was.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Bytes that the rolling sum was moved over, or was begun anew with.
    pub rolled: u64,
    /// Positions that passed the filter, each of which cost two cache lines at most.
    pub looked_up: u64,
    /// Bytes that went into block hashes.
    pub hashed: u64,
}

/// Matches a target against a basis.
#[derive(Debug)]
pub struct Matcher<'a, O = RangeCutter> {
    index: &'a Index,
    output: O,
    /// Offset in the target of the first byte that is not decided.
    at: u64,
    /// Bytes from there on that earlier pieces left.
    carry: Vec<u8>,
    /// The block that is expected next.
    expected: Option<u64>,
    /// Basis offset less target offset, wrapping, of the last copy.
    shift: u64,
    /// Groups before this block are compared block by block: one of the blocks differs.
    doubt_until: u64,
    credit: u64,
    work: Work,
}

impl<'a> Matcher<'a> {
    /// For a target from its beginning to its end.
    pub fn new(index: &'a Index) -> Matcher<'a> {
        Matcher::starting_at(index, 0, RangeCutter::default())
    }

    /// The next bytes of the target, in pieces of any size; large ones are not copied.
    pub fn push(&mut self, piece: &[u8]) {
        self.feed(piece);
    }

    /// The ranges that are complete by now.
    pub fn ranges(&mut self) -> Vec<RangeDelta> {
        self.output.take()
    }

    /// The target has ended: the remaining ranges.
    pub fn finish(mut self) -> Vec<RangeDelta> {
        self.end();
        self.output.finish()
    }
}

impl<'a, O: Output> Matcher<'a, O> {
    /// For a target from its beginning to its end, and whatever takes the delta.
    pub fn with_output(index: &'a Index, output: O) -> Matcher<'a, O> {
        Matcher::starting_at(index, 0, output)
    }

    /// The next bytes of the target.
    pub fn take_in(&mut self, piece: &[u8]) {
        self.feed(piece);
    }

    /// What takes the delta.
    pub fn output(&self) -> &O {
        &self.output
    }

    /// The target has ended: what took the delta.
    pub fn end_with_output(mut self) -> O {
        self.end();
        self.output
    }

    /// For the part of a target that begins at an offset.
    pub(super) fn starting_at(index: &'a Index, offset: u64, output: O) -> Matcher<'a, O> {
        let block = index.signature().shape().block_bytes();
        Matcher {
            index,
            output,
            at: offset,
            carry: Vec::new(),
            expected: offset.is_multiple_of(block).then_some(offset / block),
            shift: 0,
            doubt_until: 0,
            credit: CREDIT_BLOCKS * block,
            work: Work::default(),
        }
    }

    /// The work so far.
    pub fn work(&self) -> Work {
        self.work
    }

    fn block_bytes(&self) -> usize {
        self.index.signature().shape().block_bytes() as usize
    }

    fn feed(&mut self, piece: &[u8]) {
        let enough = PIECE_BYTES_MIN.max(4 * self.block_bytes());
        let mut piece = piece;
        if !self.carry.is_empty() || piece.len() < enough {
            let mut carry = std::mem::take(&mut self.carry);
            if carry.len() + piece.len() < enough {
                carry.extend_from_slice(piece);
                self.carry = carry;
                return;
            }
            // With two blocks of the new piece, all that was carried is decided.
            let left = carry.len();
            let borrowed = piece.len().min(2 * self.block_bytes());
            carry.extend_from_slice(&piece[..borrowed]);
            let decided = self.advance(&carry, usize::MAX, false);
            if decided < left || piece.len() == borrowed {
                carry.drain(..decided);
                carry.extend_from_slice(&piece[borrowed..]);
                self.carry = carry;
                return;
            }
            carry.clear();
            piece = &piece[decided - left..];
            self.carry = carry;
        }
        let decided = self.advance(piece, usize::MAX, false);
        self.carry.extend_from_slice(&piece[decided..]);
    }

    fn end(&mut self) {
        let carry = std::mem::take(&mut self.carry);
        let decided = self.advance(&carry, usize::MAX, true);
        debug_assert_eq!(decided, carry.len());
    }

    /// Decides as many bytes of `data` as can be, and no copy or literal that begins at `stop` or later. Unless `data`
    /// are the last of the target, up to two blocks at their end are left. Returns how many bytes were decided.
    pub(super) fn advance(&mut self, data: &[u8], stop: usize, last: bool) -> usize {
        let block = self.block_bytes();
        let mut at = 0;
        while at < stop {
            let wait = if last { 1 } else { 2 * block };
            at = self.follow(data, at, stop, wait);
            let searchable = data.len() - at >= block.max(wait);
            if at >= stop || !searchable {
                break;
            }
            at = match self.index.filter() {
                Some(filter) => self.search(filter, data, at, stop),
                None => self.step_over(data, at),
            };
        }
        if last && at < stop {
            at = self.close(data, at);
        }
        at
    }

    /// Copies blocks as long as the expected ones come, and steps over single blocks that were overwritten. Returns
    /// the position that is not expected to be anything, or from which fewer than `wait` bytes are there.
    fn follow(&mut self, data: &[u8], mut at: usize, stop: usize, wait: usize) -> usize {
        let block = self.block_bytes();
        while let Some(expected) = self.expected {
            if at >= stop || data.len() - at < wait {
                break;
            }
            if let Some(length) = self.match_group(data, at, expected) {
                self.copy_blocks(expected, length);
                at += length;
            } else if let Some(length) = self.match_block(data, at, expected) {
                self.copy_blocks(expected, length);
                at += length;
            } else if let Some(length) = self.match_block(data, at + block, expected + 1) {
                self.fill_gap(data, at);
                self.copy_blocks(expected + 1, length);
                at += block + length;
            } else {
                self.expected = None;
            }
        }
        at
    }

    /// The length of the group that begins with `expected`, if it is at `at`.
    fn match_group(&mut self, data: &[u8], at: usize, expected: u64) -> Option<usize> {
        let signature = self.index.signature();
        let blocks = signature.shape().group_blocks();
        if blocks == 0 || !expected.is_multiple_of(blocks) || expected < self.doubt_until {
            return None;
        }
        let (group, length) = (expected / blocks, blocks as usize * self.block_bytes());
        let bytes = data.get(at..at + length)?;
        if group >= signature.shape().groups() {
            return None;
        }
        self.work.hashed += length as u64;
        let sum = signature
            .strong()
            .of_block(expected << signature.shape().block_log, bytes);
        if signature.is_group(group, &sum) {
            return Some(length);
        }
        self.doubt_until = expected + blocks;
        None
    }

    /// The length of a block, perhaps the short last one, if it is at `at`.
    fn match_block(&mut self, data: &[u8], at: usize, block: u64) -> Option<usize> {
        let signature = self.index.signature();
        let shape = signature.shape();
        let start = block.checked_mul(shape.block_bytes())?;
        let length = shape.basis_bytes.checked_sub(start)?.min(shape.block_bytes()) as usize;
        let bytes = data.get(at..at.checked_add(length)?)?;
        if length == 0 {
            return None;
        }
        self.work.hashed += length as u64;
        let sum = signature.strong().of_block(start, bytes);
        signature.is_block(block, &sum).then_some(length)
    }

    /// Decides a block that was overwritten between two copies. What it was overwritten with may begin a block of the
    /// basis somewhere; only so much of that block is copied as the gap has room for.
    fn fill_gap(&mut self, data: &[u8], at: usize) {
        let end = at + self.block_bytes();
        let found = self
            .index
            .filter()
            .and_then(|filter| self.find(filter, data, at, end));
        match found {
            Some((start, found)) if end - start >= COPY_BYTES_MIN => {
                self.literal(&data[at..start]);
                self.copy_blocks(found, end - start);
            }
            _ => self.literal(&data[at..end]),
        }
    }

    /// Decides what lies before the next block of the basis, and that block. Returns the position after it, or the
    /// first that could not be looked at.
    fn search(&mut self, filter: &Filter, data: &[u8], from: usize, stop: usize) -> usize {
        let block = self.block_bytes();
        let end = (data.len() - block + 1).min(stop);
        if let Some((start, found)) = self.find(filter, data, from, end) {
            self.literal(&data[from..start]);
            self.copy_blocks(found, block);
            return start + block;
        }
        self.literal(&data[from..end]);
        end
    }

    /// Moves the rolling sum over the windows that begin from `from` to before `end`, until one is a block of the
    /// basis. Returns where it begins, and which block it is.
    fn find(&mut self, filter: &Filter, data: &[u8], from: usize, end: usize) -> Option<(usize, u64)> {
        let block = self.block_bytes();
        let rolling = self.index.signature().rolling();
        let mut sum = rolling.extend(0, data.get(from..from + block)?);
        // The last window ends with the data.
        let end = end.min(data.len() - block + 1);
        self.work.rolled += block as u64;
        let (mut at, mut paid) = (from, from);
        while at < end {
            let rolls = (end - at).min(data.len() - block - at);
            let (outs, ins) = (&data[at..at + rolls], &data[at + block..at + block + rolls]);
            let passed;
            (passed, sum) = rolling.pass_over(filter, outs, ins, sum);
            at += passed;
            self.work.rolled += (at - paid) as u64;
            self.credit += (at - paid) as u64;
            paid = at;
            // One of the next eight passes, or they are the last.
            let behind = end.min(at + 8);
            while at < behind {
                if filter.bit(sum) != 0
                    && let Some(found) = self.look_up(&data[at..], self.at + (at - from) as u64, sum)
                {
                    return Some((at, found));
                }
                // Behind the last window there is nothing to move it to.
                if let Some(&into) = data.get(at + block) {
                    sum = rolling.roll(sum, data[at], into);
                }
                at += 1;
            }
        }
        None
    }

    /// The block that `data` begins with, if there is one of that rolling sum. Prefers the one that continues the last
    /// copy; `offset` is where the data lie in the target.
    fn look_up(&mut self, data: &[u8], offset: u64, sum: u64) -> Option<u64> {
        let signature = self.index.signature();
        let block_bytes = signature.shape().block_bytes();
        if self.credit < block_bytes {
            return None;
        }
        self.work.looked_up += 1;
        if !self.index.may_have(sum) {
            return None;
        }
        let continuing = self
            .continuing(offset)
            .filter(|&block| signature.weak(block) == signature.weak_of(sum));
        let others = self
            .index
            .blocks_of(sum)
            .filter(|&block| Some(block) != continuing);
        for candidate in continuing.into_iter().chain(others) {
            if self.credit < block_bytes {
                return None;
            }
            if self.match_block(data, 0, candidate).is_some() {
                return Some(candidate);
            }
            self.credit -= block_bytes;
        }
        None
    }

    /// The block that lies in the basis where `offset` lies in the target, if data have not moved since the last copy.
    fn continuing(&self, offset: u64) -> Option<u64> {
        let shape = self.index.signature().shape();
        let offset = offset.wrapping_add(self.shift);
        let block = offset >> shape.block_log;
        let is_start = offset.is_multiple_of(shape.block_bytes());
        (is_start && block < shape.full_blocks()).then_some(block)
    }

    /// Without a search, a block that is not what the basis has is a literal, and the next is expected behind it.
    fn step_over(&mut self, data: &[u8], at: usize) -> usize {
        let block = self.block_bytes();
        let length = block.min(data.len() - at);
        self.literal(&data[at..at + length]);
        self.expected = Some(self.at >> self.index.signature().shape().block_log);
        at + length
    }

    /// Decides the last bytes of a target: the short last block of the basis may be the end of them.
    fn close(&mut self, data: &[u8], at: usize) -> usize {
        let shape = *self.index.signature().shape();
        let tail = shape.tail_bytes() as usize;
        let start = data.len().saturating_sub(tail);
        if tail > 0 && start >= at && self.match_block(data, start, shape.full_blocks()).is_some() {
            self.literal(&data[at..start]);
            self.copy_blocks(shape.full_blocks(), tail);
        } else {
            self.literal(&data[at..]);
        }
        data.len()
    }

    fn copy_blocks(&mut self, first: u64, length: usize) {
        let block = self.index.signature().shape().block_bytes();
        let offset = first * block;
        self.output.copy(offset, length as u64);
        self.shift = offset.wrapping_sub(self.at);
        self.at += length as u64;
        self.credit = self.credit.saturating_add(length as u64);
        self.expected = Some(first + (length as u64).div_ceil(block));
    }

    fn literal(&mut self, bytes: &[u8]) {
        self.output.literal(bytes);
        self.at += bytes.len() as u64;
    }

    /// What was found.
    pub(super) fn into_output(self) -> O {
        self.output
    }
}
