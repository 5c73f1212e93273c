//! Exact reading and printing of the numbers in a link specification.
//!
//! Everything is integer arithmetic, so that what is printed reads back as the very same value.

/// One unit a number may carry: its spelling, and how many base units it stands for.
pub(super) type Unit = (&'static str, u64);

/// Durations; the base unit is one nanosecond.
pub(super) const TIME: &[Unit] = &[("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
/// Rates; the base unit is one bit per second. Powers of ten, as for every network rate.
pub(super) const RATE: &[Unit] = &[("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
/// Fractions; the base unit is one part in 10^9, so one per cent is 10^7 of them.
pub(super) const PERCENT: &[Unit] = &[("%", 10_000_000)];
/// Byte counts; the base unit is one byte. A bare number is bytes.
pub(super) const BYTES: &[Unit] = &[
    ("", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
];

/// Reads `text` as a non-negative decimal number followed directly by one of `units`, in base units.
///
/// `None` when the number or unit is malformed, when the value is not a whole number of base units (it would
/// be rounded silently otherwise), or when it does not fit.
pub(super) fn scaled(text: &str, units: &[Unit]) -> Option<u64> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) if !decimals.is_empty() => (whole, decimals.trim_end_matches('0')),
        Some(_) => return None,
        None => (number, ""),
    };
    if whole.is_empty() || decimals.len() > 18 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let decimals_value: u64 = if decimals.is_empty() {
        0
    } else {
        decimals.parse().ok()?
    };
    let denominator = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    let numerator = u128::from(decimals_value) * u128::from(scale);
    if !numerator.is_multiple_of(denominator) {
        return None;
    }
    let part = u64::try_from(numerator / denominator).ok()?;
    whole.checked_mul(scale)?.checked_add(part)
}

/// Prints `value` base units in the largest of `units` (ascending) that leaves a number of at least one.
///
/// Units must be powers of ten; the result is exact and [`scaled`] reads it back.
pub(super) fn print_scaled(value: u64, units: &[Unit]) -> String {
    let &(name, scale) = units
        .iter()
        .rev()
        .find(|(_, scale)| value >= *scale)
        .unwrap_or(&units[0]);
    let (whole, rest) = (value / scale, value % scale);
    if rest == 0 {
        return format!("{whole}{name}");
    }
    let width = scale.ilog10() as usize;
    let decimals = format!("{rest:0width$}");
    format!("{whole}.{}{name}", decimals.trim_end_matches('0'))
}
