use super::*;
use crate::engine::delta::PatchCollector;
use driftless_protocol::message::DeltaPart;
use proptest::prelude::*;

const SPAN: usize = SPAN_BYTES as usize;

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn spans_of(content: &[u8]) -> Spans {
    let mut builder = SpansBuilder::new(7);
    content.chunks(300_001).for_each(|piece| builder.push(piece));
    let (digest, spans) = builder.finish();
    assert_eq!(digest, *blake3::hash(content).as_bytes());
    spans.expect("more than a span")
}

/// Compares span by span, as whoever reads a file does. The patch rebuilds `new`, and costs as many literals.
fn literals(old: &[u8], new: &[u8]) -> usize {
    let remembered = Spans::from_bytes(&spans_of(old).to_bytes().unwrap()).unwrap();
    let mut spans = remembered.resized(new.len() as u64).unwrap();
    let mut collector = PatchCollector::default();
    for (span, bytes) in (0..).zip(new.chunks(SPAN)) {
        let value = spans.value_of(span, bytes);
        remembered.compare(span, bytes, &value, &mut collector);
        spans.insert(span, &value).unwrap();
    }
    assert_eq!(
        spans,
        spans_of(new),
        "what is remembered next is of the new content"
    );
    let patch = collector.finish().unwrap();
    let (mut built, mut rest) = (Vec::new(), &patch.literals[..]);
    for part in patch.parts {
        match part {
            DeltaPart::Copy { offset, length } => {
                built.extend_from_slice(&old[offset as usize..][..length as usize]);
            }
            DeltaPart::Literal { length } => {
                let (now, later) = rest.split_at(length as usize);
                built.extend_from_slice(now);
                rest = later;
            }
        }
    }
    assert_eq!(built, new);
    patch.literals.len()
}

#[test]
fn an_append_costs_what_was_appended() {
    for length in [3 * SPAN, 3 * SPAN + 1, 3 * SPAN - 1, 2 * SPAN + 5_000] {
        let old = noise(length, 1);
        for added in [1, 1_024, 5_000] {
            let new = [old.clone(), noise(added, 2)].concat();
            assert_eq!(literals(&old, &new), added, "{length} and {added}");
        }
    }
}

#[test]
fn a_page_costs_a_page() {
    let old = noise(3 * SPAN + 6_000, 1);
    let mut new = old.clone();
    new[2 * SPAN + 4_096] ^= 1;
    assert_eq!(literals(&old, &new), BLOCK_BYTES);
    new[3 * SPAN + 5_999] ^= 1;
    assert_eq!(literals(&old, &new), BLOCK_BYTES + 6_000 - BLOCK_BYTES);
    let cut = &old[..2 * SPAN + 4_096];
    assert_eq!(literals(&old, cut), 0);
    assert_eq!(literals(&old, &[cut, b"x"].concat()), 1);
}

#[test]
fn what_is_stored_is_checked() {
    let stored = spans_of(&noise(2 * SPAN, 1)).to_bytes().unwrap();
    assert!(Spans::from_bytes(&stored).is_some());
    for cut in [0, 7, 15, 16, 40, stored.len() - 1] {
        assert!(Spans::from_bytes(&stored[..cut]).is_none(), "{cut}");
    }
    let mut huge = stored.clone();
    huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(Spans::from_bytes(&huge).is_none());
    assert!(
        Spans::new(SPAN_BYTES, 1).is_none(),
        "one span has no value of this kind"
    );
    let (digest, spans) = SpansBuilder::new(1).finish();
    assert_eq!((digest, spans), (*blake3::hash(b"").as_bytes(), None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_change_is_rebuilt(
        lengths in (SPAN + 1..3 * SPAN, SPAN + 1..3 * SPAN),
        pages in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let source = noise(3 * SPAN, 3);
        let old = &source[..lengths.0];
        let mut new = source[..lengths.1].to_vec();
        for page in pages {
            let at = page.index(new.len());
            new[at] ^= 0x55;
        }
        let most = lengths.1.saturating_sub(lengths.0) + 6 * BLOCK_BYTES;
        // More than an op holds is not for this test.
        prop_assume!(most < SPAN);
        prop_assert!(literals(old, &new) <= most);
    }
}
