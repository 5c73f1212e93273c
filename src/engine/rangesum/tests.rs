use super::*;
use proptest::prelude::*;

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

fn sums_of(file: &[u8]) -> RangeSums {
    let mut sums = RangeSums::new(file.len() as u64);
    set(&mut sums, file);
    sums
}

/// Reads what is unknown, and says how many spans that were.
fn set(sums: &mut RangeSums, file: &[u8]) -> usize {
    let unknown: Vec<u64> = sums.unknown().collect();
    for &span in unknown.iter().rev() {
        let start = (span * SPAN_BYTES) as usize;
        let bytes = &file[start..start + sums.span_bytes(span) as usize];
        sums.set(span, bytes).unwrap();
    }
    unknown.len()
}

fn blake3(file: &[u8]) -> [u8; 32] {
    *blake3::hash(file).as_bytes()
}

#[test]
fn the_digest_is_that_of_the_whole_at_every_edge() {
    let file = noise(9 << 20, 1);
    let span = SPAN_BYTES as usize;
    let mut lengths = vec![0, 1, 1_023, 1_024, 1_025];
    for spans in 1..=9 {
        lengths.extend([
            spans * span - 1,
            spans * span,
            spans * span + 1,
            spans * span + 1_024,
        ]);
    }
    for length in lengths.into_iter().filter(|&length| length <= file.len()) {
        let file = &file[..length];
        assert_eq!(sums_of(file).digest(), Ok(blake3(file)), "{length} bytes");
    }
}

#[test]
fn an_append_reads_the_last_span_only() {
    let file = noise(6 << 20, 2);
    let mut sums = sums_of(&file[..(5 << 20) - 100]);
    sums.resize((5 << 20) + 7);
    assert_eq!(sums.digest(), Err(RangeSumFault::Unknown(4)));
    assert_eq!(set(&mut sums, &file), 2);
    assert_eq!(sums.digest(), Ok(blake3(&file[..(5 << 20) + 7])));
    // On a border, nothing old is read.
    let mut sums = sums_of(&file[..4 << 20]);
    sums.resize((4 << 20) + 1);
    assert_eq!(sums.unknown().collect::<Vec<_>>(), [4]);
}

#[test]
fn misuse_is_told() {
    let mut sums = RangeSums::new(3 << 20);
    let length = RangeSumFault::Length {
        span: 1,
        wanted: 1 << 20,
        given: 3,
    };
    assert_eq!(sums.set(1, b"abc"), Err(length));
    assert!(matches!(
        sums.set(9, b""),
        Err(RangeSumFault::Beyond { span: 9, .. })
    ));
    assert_eq!(sums.to_bytes(), None);
    assert!(RangeSums::from_bytes(3 << 20, &[0; 95]).is_err());
    assert!(RangeSums::from_bytes(3 << 20, &[0; 64]).is_err());
    assert!(RangeSums::from_bytes(0, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Grown, cut, changed in place, stored and loaded: the digest stays that of the bytes.
    #[test]
    fn any_history_gives_the_digest_of_the_bytes(
        seed in any::<u64>(),
        first in 0usize..4 << 20,
        steps in prop::collection::vec((0usize..4 << 20, any::<prop::sample::Index>()), 1..5),
    ) {
        let source = noise(4 << 20, seed);
        let mut file = source[..first].to_vec();
        let mut sums = sums_of(&file);
        for (length, page) in steps {
            if length < file.len() {
                file.truncate(length);
            } else {
                file.extend_from_slice(&source[file.len()..length]);
            }
            sums.resize(length as u64);
            set(&mut sums, &file);
            if length > 0 {
                let at = page.index(length);
                file[at] ^= 1;
                let span = at as u64 / SPAN_BYTES;
                let start = (span * SPAN_BYTES) as usize;
                sums.set(span, &file[start..start + sums.span_bytes(span) as usize]).unwrap();
            }
            prop_assert_eq!(sums.digest(), Ok(blake3(&file)));
            let stored = sums.to_bytes().unwrap();
            prop_assert_eq!(RangeSums::from_bytes(length as u64, &stored).unwrap(), sums.clone());
        }
    }

    /// A tree takes subtrees of any mixture of sizes.
    #[test]
    fn a_tree_takes_any_mixture_of_sizes(length in 2_049usize..200_000, choices in prop::collection::vec(0u32..6, 200)) {
        let bytes = noise(length, length as u64);
        let mut tree = Tree::default();
        let (mut at, mut choices) = (0, choices.into_iter().cycle());
        while at < length {
            let room = if at == 0 { 5 } else { (at / 1024).trailing_zeros() };
            let mut level = choices.next().unwrap().min(room);
            while level > 0 && (at + (1024 << level) > length || at == 0 && 1024 << level >= length) {
                level -= 1;
            }
            let end = (at + (1024 << level)).min(length);
            tree.push(level, subtree(at as u64, &bytes[at..end]));
            at = end;
        }
        prop_assert_eq!(tree.root(), Some(blake3(&bytes)));
    }
}
