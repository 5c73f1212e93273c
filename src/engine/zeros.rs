//! Runs of zeros: what holes are made of.

/// As many zeros as a range can have.
pub static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Whether all bytes are zero; looks hardly further than the first that is not.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(256)
        .all(|piece| piece.iter().fold(0, |any, &byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_anywhere_is_something() {
        for length in [0, 1, 255, 256, 257, 1000] {
            assert!(is_zero(&ZEROS[..length]));
            for at in 0..length {
                let mut block = vec![0; length];
                block[at] = 1;
                assert!(!is_zero(&block), "{at} of {length}");
            }
        }
    }
}
