//! Patterns of whole paths, an element of the pattern for each level.

use super::filter::Wildcard;
use driftless_protocol::Name;
use std::fmt;
use std::str::FromStr;

/// A path below a root, in whose elements `*`, `?` and `[...]` stand for any bytes of one name.
#[derive(Debug, Clone)]
pub struct PathPattern {
    text: String,
    elements: Vec<Wildcard>,
}

impl PathPattern {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many of these names, from the first one on, are a path that matches: all elements of the pattern, or `None`.
    pub fn matches_start(&self, path: &[Name]) -> Option<usize> {
        let levels = self.elements.len();
        let start = path.get(..levels)?;
        let matches = |(element, name): (&Wildcard, &Name)| element.matches(name.as_bytes());
        self.elements.iter().zip(start).all(matches).then_some(levels)
    }
}

impl FromStr for PathPattern {
    type Err = String;

    /// Reads a pattern; says in words what is wrong with it.
    fn from_str(text: &str) -> Result<PathPattern, String> {
        let path = text.strip_prefix('/').unwrap_or(text);
        let path = path.strip_suffix('/').unwrap_or(path);
        let element = |element: &str| match element {
            "" => Err("names a path below the root, without empty elements, as in releases/*".to_owned()),
            "." | ".." => Err("must not have . or .. in it".to_owned()),
            _ if element.contains("**") => {
                Err("has ** in it, but an element stands for one level (write */* for two)".to_owned())
            }
            _ => Wildcard::new(element.as_bytes())
                .ok_or_else(|| "is malformed: a [ without its ], or a backslash at the end".to_owned()),
        };
        Ok(PathPattern {
            text: text.to_owned(),
            elements: path.split('/').map(element).collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &PathPattern) -> bool {
        self.text == other.text
    }
}

impl Eq for PathPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<Name> {
        path.split('/')
            .map(|name| Name::new(name.as_bytes()).unwrap())
            .collect()
    }

    #[test]
    fn the_start_of_a_path_matches_level_by_level() {
        let pattern: PathPattern = "sites/*/v[0-9]".parse().unwrap();
        assert_eq!(pattern.matches_start(&names("sites/a/v1")), Some(3));
        assert_eq!(pattern.matches_start(&names("sites/a/v1/index.html")), Some(3));
        for other in ["sites", "sites/a", "sites/a/b/v1", "sites/a/v10", "other/a/v1"] {
            assert_eq!(pattern.matches_start(&names(other)), None, "{other}");
        }
        let pattern: PathPattern = "/current/".parse().unwrap();
        assert_eq!(pattern.matches_start(&names("current/x")), Some(1));
        assert_eq!(pattern.text(), "/current/");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, reason) in [
            ("", "below the root"),
            ("/", "below the root"),
            ("a//b", "empty elements"),
            ("a/../b", ".."),
            ("a/**", "one level"),
            ("a[", "malformed"),
        ] {
            let error = text.parse::<PathPattern>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
