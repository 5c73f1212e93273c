//! Which ranges of a file have arrived.

/// A set of byte ranges that have arrived, to catch overlaps and to know when a file is complete.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Start to end, disjoint, never adjacent.
    spans: std::collections::BTreeMap<u64, u64>,
}

impl Coverage {
    /// Adds `[start, start + length)`; false if any of it was there already or the end overflows.
    pub fn add(&mut self, start: u64, length: u64) -> bool {
        let Some(end) = start.checked_add(length) else {
            return false;
        };
        if length == 0 {
            return true;
        }
        let before = self.spans.range(..=start).next_back().map(|(&s, &e)| (s, e));
        let after = self.spans.range(start..).next().map(|(&s, &e)| (s, e));
        if before.is_some_and(|(_, e)| e > start) || after.is_some_and(|(s, _)| s < end) {
            return false;
        }
        let mut span = (start, end);
        if let Some((s, e)) = before.filter(|&(_, e)| e == start) {
            self.spans.remove(&s);
            span.0 = s;
            debug_assert_eq!(e, start);
        }
        if let Some((s, e)) = after.filter(|&(s, _)| s == end) {
            self.spans.remove(&s);
            span.1 = e;
        }
        self.spans.insert(span.0, span.1);
        true
    }

    /// Whether all of `[start, start + length)` has arrived.
    pub fn contains(&self, start: u64, length: u64) -> bool {
        let before = self.spans.range(..=start).next_back();
        length == 0 || before.is_some_and(|(_, &end)| end.saturating_sub(start) >= length)
    }

    /// Whether exactly `[0, size)` is covered.
    pub fn is_complete(&self, size: u64) -> bool {
        match self.spans.iter().next() {
            None => size == 0,
            Some((&start, &end)) => self.spans.len() == 1 && start == 0 && end == size,
        }
    }

    /// How many separate spans there are.
    pub fn span_count(&self) -> usize {
        self.spans.len()
    }
}
