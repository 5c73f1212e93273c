//! How names, numbers and times are written for people.

use driftless_protocol::name;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// A name or path without anything that a terminal or a log could trip over.
pub(super) fn escaped(text: impl AsRef<OsStr>) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = name::escape(text.as_ref().as_bytes(), &mut out);
    out
}

/// A word as a shell takes it, for commands that are to be pasted.
pub(super) fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(byte);
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        return escaped(word);
    }
    format!("'{}'", escaped(word).replace('\'', "'\\''"))
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 entry`, `2,000 entries`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Bytes in decimal units: `999 B`, `1.2 MB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be written as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time span: `0.81 s`, `12 s`, `3 min 5 s`, `2 h 4 min`, `3 d 2 h`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => two(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => two(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

fn two(large: u64, unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {unit}")
    } else {
        format!("{large} {unit} {small} {small_unit}")
    }
}

/// How long ago a moment in unix seconds was.
pub(super) fn ago(at: u64, now: u64) -> String {
    match now.saturating_sub(at) {
        0 => "just now".to_owned(),
        seconds @ 1..10 => format!("{seconds} s ago"),
        seconds => format!("{} ago", span(Duration::from_secs(seconds))),
    }
}

/// `10m`, `90s`, `50ms`, `2h`, `1d`, or a number of seconds.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time span: write a number with ms, s, m, h or d, as in 10m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let span = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds))
        .ok_or_else(wrong)?;
    Ok(Duration::from_millis(span))
}

/// A number of bytes, with K, M, G or T (also KiB and so on) for powers of 1024, or kB, MB, GB or TB for those of 1000.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write a number with K, M, G or T, as in 64M");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let power = match unit.chars().next() {
        None | Some('b') if unit.len() < 2 => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        _ => return Err(wrong()),
    };
    let base: u64 = match unit.get(1..).unwrap_or_default() {
        "" | "ib" => 1024,
        "b" => 1000,
        _ => return Err(wrong()),
    };
    let number = digits
        .parse::<u64>()
        .ok()
        .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .and_then(|number| number.checked_mul(base.pow(power)))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_bases() {
        let sizes = ["0", "7b", "2K", "2kB", "3MiB", "1g", "1TB"].map(parse_bytes);
        let bytes = [0, 7, 2048, 2000, 3 << 20, 1 << 30, 1_000_000_000_000];
        assert_eq!(sizes, bytes.map(Ok));
        for wrong in ["", "K", "1X", "1KiX", "-1", "+1", "99999999999T", "1.5G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [0, 999, 1000, 1234567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [999, 1000, 999_949, 999_950, 12_345_678].map(bytes),
            ["999 B", "1.0 kB", "999.9 kB", "1.0 MB", "12.3 MB"]
        );
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(
            (count(1, "file", "files"), count(2, "file", "files")),
            ("1 file".into(), "2 files".into())
        );
        let spans =
            [810, 12_000, 185_000, 600_000, 7_440_000, 266_400_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(
            spans,
            ["0.81 s", "12 s", "3 min 5 s", "10 min", "2 h 4 min", "3 d 2 h"]
        );
        assert_eq!(
            (ago(10, 5), ago(5, 10), ago(0, 90)),
            ("just now".into(), "5 s ago".into(), "1 min 30 s ago".into())
        );
    }

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("10min", 600),
            ("2h", 7200),
            ("1d", 86400),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "m",
            "-1m",
            "1.5h",
            "10 m",
            "1w",
            "99999999999999999999s",
            "9999999999999999d",
            "+1s",
            "1ß",
        ] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_are_quoted_only_where_a_shell_needs_it() {
        assert_eq!(quoted("/srv/photos"), "/srv/photos");
        assert_eq!(quoted("my photos"), "'my photos'");
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(quoted(""), "''");
        assert_eq!(escaped(OsStr::from_bytes(b"a\x1b\xff")), "a\\x1b\\xff");
    }
}
