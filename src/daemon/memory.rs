//! Giving memory back after much was moved.

/// Contents of a session after which it is worth it, in bytes.
const WORTH_IT_BYTES: u64 = 16 << 20;

/// Remembers how much a session has moved since memory was last given back.
#[derive(Debug, Default)]
pub struct Spent {
    given_back_at: u64,
}

impl Spent {
    /// Called when nothing is left to do: gives back to the kernel what the allocator keeps of buffers, if contents were
    /// moved since; `bytes` is how many were ever. The allocator of glibc keeps some 100 MB for the life of the process
    /// after one large transfer otherwise.
    pub fn rest(&mut self, bytes: u64) -> bool {
        if bytes.saturating_sub(self.given_back_at) < WORTH_IT_BYTES {
            return false;
        }
        self.given_back_at = bytes;
        crate::fs::give_memory_back();
        true
    }
}

/// Gives back what connections that came to rest have freed.
#[derive(Debug, Default)]
pub struct Rested {
    rests: u64,
}

impl Rested {
    /// Called every few seconds: does nothing if no connection came to rest since the last call.
    pub fn tend(&mut self) {
        let rests = crate::net::rests();
        if std::mem::replace(&mut self.rests, rests) != rests {
            crate::fs::give_memory_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_much_is_worth_it() {
        let mut spent = Spent::default();
        assert!(!spent.rest(WORTH_IT_BYTES - 1) && spent.rest(WORTH_IT_BYTES));
        assert!(!spent.rest(WORTH_IT_BYTES) && spent.rest(2 * WORTH_IT_BYTES));
    }
}
