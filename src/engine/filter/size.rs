//! Sizes as rsync's options take them: `--min-size`, `--max-size`, `--bwlimit`.

use thiserror::Error;

/// The unit of a number without a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeUnit {
    /// As for `--max-size`.
    Bytes,
    /// 1,024 bytes, as for `--bwlimit`.
    Kibibytes,
}

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SizeFault {
    /// Not a number with a known suffix.
    #[error("not a size; write a number, such as 1.5G, 200MiB, 64kB or 2g-1")]
    Malformed,
    /// Above 2^63 - 1 bytes.
    #[error("the size is above {} bytes, the largest that a file can have", i64::MAX)]
    TooLarge,
    /// Below zero.
    #[error("the size is below zero")]
    Negative,
}

/// Parses a size into bytes. `K`, `KiB` and so on to `P` are powers of 1,024, `KB` and so on powers of 1,000, `B` is
/// bytes; letters of either case, decimal fractions, and `+1` or `-1` at the end are taken. Fractions of a byte are
/// dropped. (rsync counts in floating point and may be one byte off; this is exact.)
pub fn parse_size(text: &str, unit: SizeUnit) -> Result<u64, SizeFault> {
    let (body, offset) = match (text.strip_suffix("+1"), text.strip_suffix("-1")) {
        (Some(body), _) => (body, 1),
        (None, Some(body)) => (body, -1),
        (None, None) => (text, 0),
    };
    let end = body
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(body.len());
    let (number, suffix) = body.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(SizeFault::Malformed);
    }
    let factor = factor(suffix, unit).ok_or(SizeFault::Malformed)?;
    let whole: u128 = match whole.trim_start_matches('0') {
        "" => 0,
        digits if digits.len() > 20 => return Err(SizeFault::TooLarge),
        digits => digits.parse().map_err(|_| SizeFault::Malformed)?,
    };
    // Twenty digits are more than the largest factor has, so nothing that counts is cut off.
    let fraction = &fraction[..fraction.len().min(20)];
    let part: u128 = match fraction {
        "" => 0,
        digits => digits.parse().map_err(|_| SizeFault::Malformed)?,
    };
    let scale = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(20));
    let part = part
        .checked_mul(factor)
        .map(|part| part / scale)
        .ok_or(SizeFault::TooLarge)?;
    let bytes = whole
        .checked_mul(factor)
        .and_then(|bytes| bytes.checked_add(part))
        .and_then(|bytes| i128::try_from(bytes).ok())
        .ok_or(SizeFault::TooLarge)?
        + offset;
    match u64::try_from(bytes) {
        Ok(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        Ok(_) => Err(SizeFault::TooLarge),
        Err(_) if bytes < 0 => Err(SizeFault::Negative),
        Err(_) => Err(SizeFault::TooLarge),
    }
}

fn factor(suffix: &str, unit: SizeUnit) -> Option<u128> {
    let suffix = suffix.to_ascii_lowercase();
    let Some(letter) = suffix.chars().next() else {
        return Some(match unit {
            SizeUnit::Bytes => 1,
            SizeUnit::Kibibytes => 1_024,
        });
    };
    let power = u32::try_from("bkmgtp".find(letter)?).ok()?;
    match &suffix[1..] {
        "" | "ib" => Some(1_024u128.pow(power)),
        "b" => Some(1_000u128.pow(power)),
        _ => None,
    }
}
