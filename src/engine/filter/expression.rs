//! Regular expressions: those of the `regex` crate, and POSIX extended ones translated to them.
//!
//! Both run in time linear in the text, on bytes. `.` matches every byte, also a newline, since names may hold one.

use super::error::RuleFault;
use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

pub(super) fn compile(expression: &str) -> Result<Regex, RuleFault> {
    RegexBuilder::new(expression)
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => RuleFault::RegexTooLarge,
            _ => RuleFault::BadRegex,
        })
}

/// Translates a POSIX extended expression with GNU's additions (`\w`, `\b`, `\<`, ...), as `regcomp` of the GNU C library
/// reads it. Back-references have no translation and are a fault.
pub(super) fn from_posix(expression: &[u8]) -> Result<String, RuleFault> {
    let mut out = String::with_capacity(expression.len() * 2);
    let mut rest = expression;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'[' => rest = bracket(rest, &mut out)?,
            b'\\' => {
                let (&escaped, after) = rest.split_first().ok_or(RuleFault::BadRegex)?;
                rest = after;
                match escaped {
                    b'w' | b'W' | b's' | b'S' | b'b' | b'B' => {
                        out.push('\\');
                        out.push(char::from(escaped));
                    }
                    b'<' => out.push_str(r"\b{start}"),
                    b'>' => out.push_str(r"\b{end}"),
                    b'`' => out.push_str(r"\A"),
                    b'\'' => out.push_str(r"\z"),
                    b'1'..=b'9' => return Err(RuleFault::BadRegex),
                    byte => push_byte(byte, &mut out),
                }
            }
            // A brace that starts no repetition is an ordinary byte.
            b'{' => match repetition(rest) {
                Some(body) => {
                    out.extend(["{", body, "}"]);
                    rest = &rest[body.len() + 1..];
                }
                None => push_byte(b'{', &mut out),
            },
            // `(?` would start a group with flags.
            b'(' if rest.first() == Some(&b'?') => return Err(RuleFault::BadRegex),
            b'(' | b')' | b'|' | b'^' | b'$' | b'.' => out.push(char::from(*first)),
            // Of repeated repetitions the outer one rules; without a group a `?` would mean "lazy" here.
            b'*' | b'+' | b'?' => repeat(*first, &mut rest, &mut out),
            byte => push_byte(*byte, &mut out),
        }
    }
    Ok(out)
}

/// A repetition and those right behind it. `x+?` of POSIX is `(x+)?`; any two different ones together mean `*`.
fn repeat(first: u8, rest: &mut &[u8], out: &mut String) {
    let mut sign = first;
    while let [next @ (b'*' | b'+' | b'?'), after @ ..] = *rest {
        if *next != sign {
            sign = b'*';
        }
        *rest = after;
    }
    out.push(char::from(sign));
}

/// What is in front of the closing brace, if that is `1`, `1,` or `1,2`.
fn repetition(rest: &[u8]) -> Option<&str> {
    let end = rest.iter().position(|&byte| byte == b'}')?;
    let body = std::str::from_utf8(&rest[..end]).ok()?;
    let (least, most) = body.split_once(',').unwrap_or((body, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!least.is_empty() && is_number(least) && is_number(most)).then_some(body)
}

/// Translates a bracket expression after its opening bracket; returns what follows it. A backslash is an ordinary
/// byte in it.
fn bracket<'a>(mut rest: &'a [u8], out: &mut String) -> Result<&'a [u8], RuleFault> {
    out.push('[');
    if let [b'^', after @ ..] = rest {
        out.push('^');
        rest = after;
    }
    let mut is_first = true;
    loop {
        let (&byte, after) = rest.split_first().ok_or(RuleFault::BadRegex)?;
        rest = after;
        match (byte, rest.first()) {
            (b']', _) if !is_first => {
                out.push(']');
                return Ok(rest);
            }
            (b'[', Some(b':')) => {
                let end = rest
                    .windows(2)
                    .position(|pair| pair == b":]")
                    .filter(|&end| end > 1)
                    .ok_or(RuleFault::BadRegex)?;
                let name = std::str::from_utf8(&rest[1..end]).map_err(|_| RuleFault::BadRegex)?;
                out.push_str(&format!("[:{name}:]"));
                rest = &rest[end + 2..];
            }
            // Collating elements and equivalence classes.
            (b'[', Some(b'.' | b'=')) => return Err(RuleFault::BadRegex),
            _ => {
                push_byte(byte, out);
                if let [b'-', end, after @ ..] = rest
                    && *end != b']'
                {
                    out.push('-');
                    push_byte(*end, out);
                    rest = after;
                }
            }
        }
        is_first = false;
    }
}

/// One byte that stands for itself.
pub(super) fn push_byte(byte: u8, out: &mut String) {
    match byte {
        b'/' | b'_' => out.push(char::from(byte)),
        _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
        _ => out.push_str(&format!("\\x{byte:02x}")),
    }
}
