//! A pattern of an rsync rule: which part of the path it is compared with, and how.

use super::wildmatch::{Glob, Start, Token, tokens};
use std::sync::Arc;

/// What a pattern is compared with: an entry, by the directory that holds it and its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The path of the directory from the root of the tree, without slashes at its ends; empty for the root.
    pub(super) directory: &'a [u8],
    /// The entry's name.
    pub(super) name: &'a [u8],
    /// Whether it is a directory itself.
    pub(super) is_directory: bool,
}

impl Subject<'_> {
    /// The path from the root, joined.
    pub(super) fn path(&self) -> Vec<u8> {
        self.path_below(0)
    }

    /// The path from a directory above, which is given by the length of its own path.
    pub(super) fn path_below(&self, base: usize) -> Vec<u8> {
        let mut path = below(self.directory, base).to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.name);
        path
    }
}

/// `directory` as seen from its ancestor whose path is `base` bytes long.
fn below(directory: &[u8], base: usize) -> &[u8] {
    match base {
        0 => directory,
        _ => directory.get(base + 1..).unwrap_or_default(),
    }
}

/// Where paths begin for a pattern that is compared with more than the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// At the root of the tree.
    Root,
    /// At a directory of the tree, by the length of its path: a leading slash in a per-directory file means that.
    Below(usize),
    /// At a directory above the tree; the bytes lead from there to the root of the tree.
    Above(Arc<[u8]>),
}

/// Which part of the text must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The name only.
    Name,
    /// The whole path.
    Whole,
    /// The last so many elements of the path.
    Last(usize),
    /// The path from its beginning or from any element on.
    AnyElement,
}

/// How the text is compared. The simple forms are what most rules are made of, and are faster.
#[derive(Debug, Clone)]
enum Test {
    Never,
    Literal(Box<[u8]>),
    /// `*` before a literal; only for names.
    Suffix(Box<[u8]>),
    /// `*` after a literal; only for names.
    Prefix(Box<[u8]>),
    Glob(Glob),
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    extent: Extent,
    origin: Origin,
    test: Test,
    /// The text gets a slash in front, so that `**/` matches at the beginning, too.
    lead: bool,
    /// The text of a directory gets a slash behind, so that `dir/***` matches the directory itself.
    trail: bool,
}

impl Pattern {
    /// Compiles a pattern, from which a trailing slash was taken off. `origin` is for patterns that are compared with
    /// paths; a pattern without a slash and without `**` looks at the name only.
    pub(super) fn new(text: &[u8], origin: Origin) -> Pattern {
        let slashes = text.iter().filter(|&&byte| byte == b'/').count();
        let is_wild = text.iter().any(|byte| b"*[?".contains(byte));
        let first_double = text.windows(2).position(|pair| pair == b"**");
        let anchored = text.first() == Some(&b'/');
        let extent = match (slashes, first_double) {
            (0, None) => Extent::Name,
            _ if anchored => Extent::Whole,
            (_, None) => Extent::Last(slashes + 1),
            (_, Some(0)) => Extent::Whole,
            (_, Some(_)) => Extent::AnyElement,
        };
        let body = if anchored { &text[1..] } else { text };
        Pattern {
            extent,
            test: Test::new(body, is_wild, extent),
            lead: first_double == Some(0) && !matches!(origin, Origin::Above(_)),
            trail: first_double.is_some() && text.ends_with(b"***"),
            origin,
        }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn matches(&self, subject: Subject<'_>) -> bool {
        self.matches_counting(subject, || {})
    }

    /// As [`Pattern::matches`]; `step` is called for each unit of the automaton's work.
    pub(super) fn matches_counting(&self, subject: Subject<'_>, step: impl FnMut()) -> bool {
        if self.extent == Extent::Name {
            return self.test.matches(&[subject.name], Start::Beginning, step);
        }
        // Most rules that fail do so at the name, which is where a literal path ends.
        if let Test::Literal(path) = &self.test
            && !path.ends_with(subject.name)
        {
            return false;
        }
        let (directory, above) = match &self.origin {
            Origin::Root => (subject.directory, &[][..]),
            Origin::Below(base) => (below(subject.directory, *base), &[][..]),
            Origin::Above(way) => (subject.directory, &**way),
        };
        let slash_if = |wanted: bool| if wanted { &b"/"[..] } else { &[][..] };
        let mut pieces = [
            slash_if(self.lead),
            above,
            slash_if(!above.is_empty()),
            directory,
            slash_if(!directory.is_empty()),
            subject.name,
            slash_if(self.trail && subject.is_directory),
        ];
        let start = match self.extent {
            Extent::AnyElement => Start::AnyElement,
            Extent::Last(count) if !keep_last(&mut pieces, count) => return false,
            _ => Start::Beginning,
        };
        self.test.matches(&pieces, start, step)
    }
}

/// Cuts the joined text down to its last `count` elements; `false` if it has fewer.
fn keep_last(pieces: &mut [&[u8]], mut count: usize) -> bool {
    for at in (0..pieces.len()).rev() {
        for index in (0..pieces[at].len()).rev() {
            if pieces[at][index] == b'/' {
                count -= 1;
                if count == 0 {
                    pieces[at] = &pieces[at][index + 1..];
                    pieces[..at].fill(&[]);
                    return true;
                }
            }
        }
    }
    count == 1
}

impl Test {
    fn new(body: &[u8], is_wild: bool, extent: Extent) -> Test {
        if !is_wild {
            // A backslash is an ordinary byte where there is no wildcard.
            return Test::Literal(body.into());
        }
        let Some(tokens) = tokens(body) else {
            return Test::Never;
        };
        let literal = |tokens: &[Token]| {
            tokens
                .iter()
                .map(|token| match token {
                    Token::Byte(byte) => Some(*byte),
                    _ => None,
                })
                .collect::<Option<Box<[u8]>>>()
        };
        if let Some(bytes) = literal(&tokens) {
            return Test::Literal(bytes);
        }
        if extent == Extent::Name {
            if let [Token::Star, rest @ ..] = &*tokens
                && let Some(bytes) = literal(rest)
            {
                return Test::Suffix(bytes);
            }
            if let [rest @ .., Token::Star] = &*tokens
                && let Some(bytes) = literal(rest)
            {
                return Test::Prefix(bytes);
            }
        }
        Test::Glob(Glob::new(&tokens))
    }

    fn matches(&self, pieces: &[&[u8]], start: Start, step: impl FnMut()) -> bool {
        match self {
            Test::Never => false,
            Test::Literal(bytes) => equals(pieces, bytes),
            Test::Suffix(bytes) => pieces.last().is_some_and(|name| name.ends_with(bytes)),
            Test::Prefix(bytes) => pieces.last().is_some_and(|name| name.starts_with(bytes)),
            Test::Glob(glob) => glob.matches(pieces, start, step),
        }
    }
}

/// Whether the joined pieces are exactly these bytes.
fn equals(pieces: &[&[u8]], mut bytes: &[u8]) -> bool {
    for piece in pieces {
        let Some(rest) = bytes.strip_prefix(*piece) else {
            return false;
        };
        bytes = rest;
    }
    bytes.is_empty()
}
