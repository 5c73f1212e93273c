//! Wildcards with rsync's meaning (`*`, `**`, `?`, `[...]`, backslash), run as a bit-parallel automaton.
//!
//! The meaning is that of rsync's man page, "PATTERN MATCHING RULES", and of what rsync 3.5 does where the page is
//! silent (both are compared by `tests/filter_rsync.rs`). The method is Shift-And (Baeza-Yates and Gonnet, 1992) with
//! self-loops for the stars: every state is one bit, and each byte of text costs one step for every 64 states. So the
//! time is bounded by text times pattern, whatever the pattern; nothing is ever tried twice.

use std::collections::HashMap;

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This byte.
    Byte(u8),
    /// One byte of a set: `?` or a class.
    Set(Box<ByteSet>),
    /// `*`: any number of bytes other than a slash.
    Star,
    /// `**`: any number of bytes.
    DoubleStar,
}

/// A set of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn remove(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] &= !(1 << (byte & 63));
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn where_byte(test: impl Fn(u8) -> bool) -> ByteSet {
        let mut set = ByteSet::default();
        (0..=255)
            .filter(|&byte| test(byte))
            .for_each(|byte| set.insert(byte));
        set
    }

    fn join(&mut self, other: ByteSet) {
        self.0.iter_mut().zip(other.0).for_each(|(to, from)| *to |= from);
    }

    fn complement(self) -> ByteSet {
        ByteSet(self.0.map(|word| !word))
    }
}

/// Splits a pattern into tokens. `None`: the pattern is malformed (a class without its end, an unknown class name, a
/// backslash at the end) and so never matches anything.
pub(super) fn tokens(pattern: &[u8]) -> Option<Vec<Token>> {
    let mut found = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'\\' => {
                let (&byte, after) = rest.split_first()?;
                rest = after;
                found.push(Token::Byte(byte));
            }
            b'?' => found.push(Token::Set(Box::new(ByteSet::where_byte(|byte| byte != b'/')))),
            b'*' => {
                let more = rest.iter().take_while(|&&byte| byte == b'*').count();
                rest = &rest[more..];
                found.push(if more == 0 { Token::Star } else { Token::DoubleStar });
            }
            b'[' => {
                let (set, after) = class(rest)?;
                rest = after;
                found.push(Token::Set(Box::new(set)));
            }
            &byte => found.push(Token::Byte(byte)),
        }
    }
    Some(found)
}

/// Parses a class after its opening bracket; returns the set and what follows the closing bracket.
fn class(mut rest: &[u8]) -> Option<(ByteSet, &[u8])> {
    let mut set = ByteSet::default();
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    if negated {
        rest = &rest[1..];
    }
    // The byte that a following `-` would make the start of a range.
    let mut previous = None;
    let mut first = true;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            // A closing bracket in first place stands for itself.
            b']' if !first => break,
            b'\\' => {
                let (&byte, after) = rest.split_first()?;
                rest = after;
                set.insert(byte);
                previous = Some(byte);
            }
            b'-' if previous.is_some() && rest.first().is_some_and(|&next| next != b']') => {
                let (&end, after) = rest.split_first()?;
                rest = after;
                let end = if end == b'\\' {
                    let (&end, after) = rest.split_first()?;
                    rest = after;
                    end
                } else {
                    end
                };
                let start = previous.take().unwrap_or(end);
                set.join(ByteSet::where_byte(|byte| start <= byte && byte <= end));
            }
            b'[' if rest.first() == Some(&b':') => {
                let end = rest[1..].iter().position(|&byte| byte == b']')? + 1;
                if end >= 2 && rest[end - 1] == b':' {
                    set.join(named_class(&rest[1..end - 1])?);
                    rest = &rest[end + 1..];
                    previous = None;
                } else {
                    // No `:]`: an ordinary bracket.
                    set.insert(b'[');
                    previous = Some(b'[');
                }
            }
            byte => {
                set.insert(byte);
                previous = Some(byte);
            }
        }
        first = false;
    }
    let mut set = if negated { set.complement() } else { set };
    // A class matches no slash, even if it names one.
    set.remove(b'/');
    Some((set, rest))
}

/// The classes of the C locale.
fn named_class(name: &[u8]) -> Option<ByteSet> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    Some(match name {
        b"alnum" => ByteSet::where_byte(|byte| byte.is_ascii_alphanumeric()),
        b"alpha" => ByteSet::where_byte(|byte| byte.is_ascii_alphabetic()),
        b"blank" => ByteSet::where_byte(|byte| byte == b' ' || byte == b'\t'),
        b"cntrl" => ByteSet::where_byte(|byte| byte.is_ascii_control()),
        b"digit" => ByteSet::where_byte(|byte| byte.is_ascii_digit()),
        b"graph" => ByteSet::where_byte(|byte| byte.is_ascii_graphic()),
        b"lower" => ByteSet::where_byte(|byte| byte.is_ascii_lowercase()),
        b"print" => ByteSet::where_byte(|byte| byte.is_ascii_graphic() || byte == b' '),
        b"punct" => ByteSet::where_byte(|byte| byte.is_ascii_punctuation()),
        b"space" => ByteSet::where_byte(is_space),
        b"upper" => ByteSet::where_byte(|byte| byte.is_ascii_uppercase()),
        b"xdigit" => ByteSet::where_byte(|byte| byte.is_ascii_hexdigit()),
        _ => return None,
    })
}

/// Where in the text a match may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At its first byte only.
    Beginning,
    /// At its first byte and after every slash.
    AnyElement,
}

/// A compiled pattern. State `i` means "the tokens before `i` have matched"; a match ends in state `tokens.len()`.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    /// Machine words that hold one bit for each state.
    words: usize,
    /// Which column of `advance` and `stay` belongs to a byte.
    column: Box<[u8; 256]>,
    /// For each column, the states whose token consumes the byte and is passed by that.
    advance: Box<[u64]>,
    /// For each column, the states whose star consumes the byte and stays.
    stay: Box<[u64]>,
    /// The states that stand before a star, which may also match nothing.
    stars: Box<[u64]>,
    /// The final state.
    accept: usize,
}

impl Glob {
    pub(super) fn new(tokens: &[Token]) -> Glob {
        let accept = tokens.len();
        let words = accept / 64 + 1;
        let mut stars = vec![0; words];
        for (state, token) in tokens.iter().enumerate() {
            if matches!(token, Token::Star | Token::DoubleStar) {
                set_bit(&mut stars, state);
            }
        }
        let mut known: HashMap<(Vec<u64>, Vec<u64>), u8> = HashMap::new();
        let (mut column, mut advance, mut stay) = (Box::new([0; 256]), Vec::new(), Vec::new());
        for byte in 0..=255u8 {
            let pair = transitions(tokens, byte, words);
            // There are at most 256 different columns, so the number fits.
            let next = known.len() as u8;
            let number = *known.entry(pair).or_insert_with_key(|(passes, stays)| {
                advance.extend_from_slice(passes);
                stay.extend_from_slice(stays);
                next
            });
            column[usize::from(byte)] = number;
        }
        Glob {
            words,
            column,
            advance: advance.into(),
            stay: stay.into(),
            stars: stars.into(),
            accept,
        }
    }

    /// Whether the joined `pieces` match as a whole. `step` is called once for each word that is worked on: the
    /// measure of the time spent.
    pub(super) fn matches(&self, pieces: &[&[u8]], start: Start, step: impl FnMut()) -> bool {
        if self.words == 1 {
            self.run_narrow(pieces, start, step)
        } else {
            self.run_wide(pieces, start, step)
        }
    }

    fn run_narrow(&self, pieces: &[&[u8]], start: Start, mut step: impl FnMut()) -> bool {
        let restart = u64::from(start == Start::AnyElement);
        let mut states = 1 | (1 & self.stars[0]) << 1;
        for &byte in pieces.iter().copied().flatten() {
            step();
            let column = usize::from(self.column[usize::from(byte)]);
            states = (states & self.advance[column]) << 1 | states & self.stay[column];
            if byte == b'/' {
                states |= restart;
            }
            states |= (states & self.stars[0]) << 1;
            if states == 0 && restart == 0 {
                return false;
            }
        }
        states >> self.accept & 1 == 1
    }

    fn run_wide(&self, pieces: &[&[u8]], start: Start, mut step: impl FnMut()) -> bool {
        let restart = u64::from(start == Start::AnyElement);
        let mut states = vec![0; self.words];
        states[0] = 1;
        self.pass_stars(&mut states);
        for &byte in pieces.iter().copied().flatten() {
            let first = usize::from(self.column[usize::from(byte)]) * self.words;
            let (mut carry, mut any) = (0, 0);
            for (word, state) in states.iter_mut().enumerate() {
                step();
                let passed = *state & self.advance[first + word];
                *state = passed << 1 | carry | *state & self.stay[first + word];
                carry = passed >> 63;
                any |= *state;
            }
            if byte == b'/' {
                states[0] |= restart;
                any |= restart;
            }
            if any == 0 && restart == 0 {
                return false;
            }
            self.pass_stars(&mut states);
        }
        states[self.accept / 64] >> (self.accept % 64) & 1 == 1
    }

    /// A star may match nothing. Two stars never follow each other, so one pass is enough.
    fn pass_stars(&self, states: &mut [u64]) {
        let mut carry = 0;
        for (state, stars) in states.iter_mut().zip(&self.stars) {
            let passed = *state & stars;
            *state |= passed << 1 | carry;
            carry = passed >> 63;
        }
    }
}

fn set_bit(words: &mut [u64], bit: usize) {
    words[bit / 64] |= 1 << (bit % 64);
}

/// For one byte: the states that it passes, and the states that it stays in.
fn transitions(tokens: &[Token], byte: u8, words: usize) -> (Vec<u64>, Vec<u64>) {
    let (mut passes, mut stays) = (vec![0; words], vec![0; words]);
    for (state, token) in tokens.iter().enumerate() {
        match token {
            Token::Byte(wanted) if *wanted == byte => set_bit(&mut passes, state),
            Token::Set(set) if set.contains(byte) => set_bit(&mut passes, state),
            Token::Star if byte != b'/' => set_bit(&mut stays, state),
            Token::DoubleStar => set_bit(&mut stays, state),
            _ => {}
        }
    }
    (passes, stays)
}
