//! Reading whole files that nobody asked for.

use super::writers::is_uncached;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

/// Bytes in one piece.
const PIECE_BYTES: usize = 256 << 10;
/// How much may lie in memory on account of such a read.
const FORGET_BYTES: u64 = 8 << 20;

/// Hands all of a file to `take`, in pieces, until that breaks off. The page cache is left as it was: of a file of which nothing was
/// in memory nothing is there afterwards, and one that was there in parts is left alone. Where the kernel does not tell (before Linux
/// 6.5) it decides by itself what it keeps.
pub fn read_quietly(
    file: &File,
    mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let forgets = is_uncached(file) == Some(true);
    let (mut at, mut forgotten) = (0, 0);
    let mut buffer = vec![0; PIECE_BYTES];
    // Best effort: pages that stay cost memory, and nothing else.
    let forget = |from: u64, to: u64| {
        if let Some(length) = NonZero::new(to - from).filter(|_| forgets) {
            let _ = fadvise(file, from, Some(length), Advice::DontNeed);
        }
    };
    let outcome = loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => break Ok(ControlFlow::Continue(())),
            Ok(count) => {
                at += count as u64;
                if take(&buffer[..count]).is_break() {
                    break Ok(ControlFlow::Break(()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
        if at - forgotten >= FORGET_BYTES {
            forget(forgotten, at);
            forgotten = at;
        }
    };
    // Behind the end as well: the kernel reads ahead.
    if forgets {
        let _ = fadvise(file, forgotten, None, Advice::DontNeed);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_is_read_and_it_can_be_broken_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..9_000_001_u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let was_uncached = is_uncached(&file);
        let mut seen = Vec::new();
        let outcome = read_quietly(&file, |piece| {
            seen.extend_from_slice(piece);
            ControlFlow::Continue(())
        });
        assert_eq!(outcome.unwrap(), ControlFlow::Continue(()));
        assert!(seen == content);
        assert_eq!(
            is_uncached(&file),
            was_uncached,
            "the page cache is not as it was"
        );
        let mut pieces = 0;
        let outcome = read_quietly(&file, |_| {
            pieces += 1;
            ControlFlow::Break(())
        });
        assert_eq!((outcome.unwrap(), pieces), (ControlFlow::Break(()), 1));
    }
}
