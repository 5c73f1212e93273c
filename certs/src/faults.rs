//! What is wrong with a TOML file, told without its text.

/// Messages of serde's that repeat what stands in the file, in front of what was expected there.
const QUOTING: [&str; 6] = [
    "invalid type",
    "invalid value",
    "invalid length",
    "unknown field",
    "unknown variant",
    "duplicate field",
];

/// Line, key and kind of a fault. The text of the file is never repeated: who named the wrong file may have named one whose
/// content is nobody else's business, and an invite is as good as a key.
pub(crate) fn toml_fault(text: &str, fault: &toml::de::Error) -> String {
    let start = fault.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    let place = match key_at(text, before) {
        Some(key) => format!("line {line}, {key}"),
        None => format!("line {line}"),
    };
    let message = fault.message().lines().next().unwrap_or_default();
    let Some(kind) = QUOTING.iter().find(|kind| message.starts_with(**kind)) else {
        return format!("{place}: {message}");
    };
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{place}: {kind}, expected {expected}"),
        None => format!("{place}: {kind}"),
    }
}

/// The key of the line that begins within `before`, if it is a plain word, as all keys are that belong into such a file.
fn key_at<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    let (key, _) = text.get(begin..)?.lines().next()?.split_once('=')?;
    let key = key.trim();
    let is_word = !key.is_empty() && key.len() <= 24 && key.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[expect(dead_code, reason = "read to see what is said when it is wrong")]
        number: u32,
    }

    #[test]
    fn the_line_is_told_and_never_its_text() {
        for (text, line, what) in [
            ("hunter2", 1, "expected"),
            ("number = 1\nhunter2 = 3\n", 2, "unknown field"),
            (
                "\nnumber = \"hunter2\"\n",
                2,
                "number: invalid type, expected u32",
            ),
            ("number = -42\n", 1, "invalid value, expected u32"),
            ("", 1, "missing field `number`"),
        ] {
            let error = toml::from_str::<File>(text).unwrap_err();
            let told = toml_fault(text, &error);
            assert!(told.starts_with(&format!("line {line}")), "{text}: {told}");
            assert!(
                told.contains(what) && !told.contains("hunter2") && !told.contains("42"),
                "{text}: {told}"
            );
        }
    }
}
