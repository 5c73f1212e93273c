//! What a peer may do in a module.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::{self, NameError};

/// The module that stands for all.
pub(crate) const ALL_MODULES: &str = "*";

/// One thing that a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Right {
    /// Create and change entries.
    Push = 1 << 0,
    /// Remove entries. Without it a peer may still overwrite what it may push to.
    Delete = 1 << 1,
    /// Compare by digests, changing nothing.
    Verify = 1 << 2,
    /// Set owner and group.
    Owner = 1 << 3,
    /// Set the set-user-id and set-group-id bits of files.
    SetId = 1 << 4,
    /// Make devices.
    Devices = 1 << 5,
    /// Set `user.*` attributes.
    UserXattrs = 1 << 6,
    /// Set ACLs.
    Acls = 1 << 7,
    /// Set file capabilities.
    Capabilities = 1 << 8,
    /// Set `security.*` attributes, if the module takes any.
    SecurityXattrs = 1 << 9,
    /// Set `trusted.*` attributes, if the module takes any.
    TrustedXattrs = 1 << 10,
    /// Pull the tree that is offered under the name: have its content sent.
    Pull = 1 << 11,
}

/// The word for [`Right::Pull`], which is about trees that are offered, and is never granted but by being named.
const PULL: &str = "pull";

/// The words for activities. One that is not named is not granted.
const ACTIVITIES: [(&str, Right); 3] = [
    ("push", Right::Push),
    ("delete", Right::Delete),
    ("verify", Right::Verify),
];

/// The words that take metadata away. What is not named is granted, as far as the module takes it.
const REFUSALS: [(&str, Right); 8] = [
    ("no-owner", Right::Owner),
    ("no-set-id", Right::SetId),
    ("no-devices", Right::Devices),
    ("no-user-xattrs", Right::UserXattrs),
    ("no-acls", Right::Acls),
    ("no-capabilities", Right::Capabilities),
    ("no-security", Right::SecurityXattrs),
    ("no-trusted", Right::TrustedXattrs),
];

/// What a peer may do in a module, and with a tree of the same name.
///
/// As words: `push`, `delete` and `verify` are granted by being named (all three if none is), metadata is refused by
/// `no-owner`, `no-set-id`, `no-devices`, `no-user-xattrs`, `no-acls`, `no-capabilities`, `no-security` and `no-trusted`.
/// `pull` is about the tree that is offered under the name: alone, it grants nothing in a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights(u16);

/// All that has to do with modules.
const OF_MODULES: u16 = (1 << (ACTIVITIES.len() + REFUSALS.len())) - 1;

impl Rights {
    /// Everything in a module. To read a tree is another matter.
    pub const ALL: Rights = Rights(OF_MODULES);

    /// To pull a tree, and nothing in a module.
    pub const PULL: Rights = Rights(Right::Pull as u16);

    /// Whether one thing is granted.
    pub fn has(self, right: Right) -> bool {
        self.0 & right as u16 != 0
    }

    /// Reads words; they may come in any order, and twice.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Rights, RightsError> {
        let activities = ACTIVITIES.iter().fold(0, |all, (_, right)| all | *right as u16);
        let (mut granted, mut refused, mut pull) = (0, 0, 0);
        for word in words {
            if word == PULL {
                pull = Right::Pull as u16;
                continue;
            }
            let find =
                |table: &[(&str, Right)]| table.iter().find(|(own, _)| *own == word).map(|found| found.1);
            match (find(&ACTIVITIES), find(&REFUSALS)) {
                (Some(right), _) => granted |= right as u16,
                (None, Some(right)) => refused |= right as u16,
                (None, None) => return Err(RightsError::Unknown(word.to_owned())),
            }
        }
        if granted == 0 && pull != 0 {
            return match refused {
                0 => Ok(Rights::PULL),
                _ => Err(RightsError::PullAlone),
            };
        }
        if granted == 0 {
            granted = activities;
        }
        let rights = Rights(Rights::ALL.0 & !activities & !refused | granted | pull);
        match rights.has(Right::Delete) && !rights.has(Right::Push) {
            true => Err(RightsError::DeleteAlone),
            false => Ok(rights),
        }
    }

    /// The words, in a fixed order.
    pub fn words(self) -> Vec<&'static str> {
        let granted = ACTIVITIES.iter().filter(|(_, right)| self.has(*right));
        let refused = REFUSALS
            .iter()
            .filter(|(_, right)| self != Rights::PULL && !self.has(*right));
        let pull = self.has(Right::Pull).then_some(PULL);
        let words = granted.chain(refused).map(|(word, _)| *word);
        words.chain(pull).collect()
    }

    /// Whether anything is said about a module.
    pub(crate) fn is_for_modules(self) -> bool {
        self.0 & OF_MODULES != 0
    }

    /// These, and of others what is about trees where these are about modules alone, or the other way round.
    pub(crate) fn completed_by(self, others: Rights) -> Rights {
        let modules = if self.is_for_modules() { self } else { others };
        Rights(modules.0 & OF_MODULES | (self.0 | others.0) & Right::Pull as u16)
    }
}

impl Default for Rights {
    fn default() -> Rights {
        Rights::ALL
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(", "))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

/// Words with commas between them.
impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Rights, RightsError> {
        Rights::from_words(text.split(',').map(str::trim))
    }
}

impl Serialize for Rights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let words = self.words();
        let mut list = serializer.serialize_seq(Some(words.len()))?;
        words.iter().try_for_each(|word| list.serialize_element(word))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rights, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        if words.is_empty() {
            // By hand somebody may well mean "nothing" by it.
            return Err(de::Error::custom(
                "an empty list of rights (leave the module out instead)",
            ));
        }
        Rights::from_words(words.iter().map(String::as_str)).map_err(de::Error::custom)
    }
}

/// Words that are no rights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// Not one of ours.
    #[error(
        "there is no right {0:?} (push, delete, verify, pull; no-owner, no-set-id, no-devices, no-user-xattrs, no-acls, \
         no-capabilities, no-security, no-trusted)"
    )]
    Unknown(String),
    /// Deleting without pushing.
    #[error("the right to delete is of no use without the right to push (name both)")]
    DeleteAlone,
    /// Metadata is refused to one that writes nothing.
    #[error(
        "the right to pull is about reading, what begins with `no-` about writing to a module (leave one of them out)"
    )]
    PullAlone,
}

/// A module, and what a peer may do there. In the file a name stands for all rights:
/// `modules = ["photos", { module = "music", rights = ["push", "no-devices"] }]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The module; `*` is every module that the same peer has no grant of its own for.
    pub module: String,
    /// What it may do there.
    pub rights: Rights,
}

impl Grant {
    /// All rights in a module.
    pub fn all(module: impl Into<String>) -> Grant {
        let (module, rights) = (module.into(), Rights::ALL);
        Grant { module, rights }
    }

    /// To pull a tree.
    pub fn pull(tree: impl Into<String>) -> Grant {
        let (module, rights) = (tree.into(), Rights::PULL);
        Grant { module, rights }
    }

    pub(crate) fn check(&self) -> Result<(), NameError> {
        names::check(&self.module)
    }

    pub(crate) fn is_for_all(&self) -> bool {
        self.module == ALL_MODULES
    }
}

/// The table form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    module: String,
    #[serde(default)]
    rights: Rights,
}

impl Serialize for Grant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.rights == Rights::ALL {
            return serializer.serialize_str(&self.module);
        }
        let (module, rights) = (self.module.clone(), self.rights);
        Table { module, rights }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Grant, D::Error> {
        deserializer.deserialize_any(NameOrTable)
    }
}

struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = Grant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a module, or { module = NAME, rights = [...] }")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Grant, E> {
        Ok(Grant::all(name))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Grant, A::Error> {
        let Table { module, rights } = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Grant { module, rights })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Grant, A::Error> {
        Err(de::Error::invalid_type(de::Unexpected::Seq, &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_what_is_granted() {
        let rights = |text: &str| text.parse::<Rights>().unwrap();
        assert_eq!(rights("push,delete,verify"), Rights::ALL);
        assert_eq!(rights("verify, push , delete,push"), Rights::ALL);
        let only = rights("push,no-devices");
        assert!(only.has(Right::Push) && only.has(Right::Owner));
        assert!(!only.has(Right::Delete) && !only.has(Right::Verify) && !only.has(Right::Devices));
        // Without any activity all of them are meant.
        let all_but = rights("no-owner,no-set-id");
        assert!(all_but.has(Right::Push) && all_but.has(Right::Delete) && all_but.has(Right::Verify));
        assert!(!all_but.has(Right::Owner) && !all_but.has(Right::SetId));
        assert_eq!("".parse::<Rights>(), Err(RightsError::Unknown(String::new())));
        assert!(matches!("push,root".parse::<Rights>(), Err(RightsError::Unknown(word)) if word == "root"));
        assert_eq!("verify,delete".parse::<Rights>(), Err(RightsError::DeleteAlone));
    }

    #[test]
    fn to_pull_has_to_be_named_and_gives_nothing_else() {
        let rights = |text: &str| text.parse::<Rights>().unwrap();
        assert!(!Rights::ALL.has(Right::Pull) && !rights("no-owner").has(Right::Pull));
        assert_eq!(rights("pull"), Rights::PULL);
        assert!(
            !Rights::PULL.has(Right::Push)
                && !Rights::PULL.has(Right::Verify)
                && !Rights::PULL.has(Right::Owner)
        );
        assert_eq!(Rights::PULL.words(), ["pull"]);
        let both = rights("pull,push,no-owner");
        assert!(both.has(Right::Pull) && both.has(Right::Push) && !both.has(Right::Owner));
        assert_eq!(rights(&both.words().join(",")), both);
        assert_eq!("pull,no-owner".parse::<Rights>(), Err(RightsError::PullAlone));
        assert_eq!(Rights::PULL.completed_by(rights("push")), rights("push,pull"));
        assert_eq!(rights("verify").completed_by(both), rights("verify,pull"));
    }

    #[test]
    fn every_set_of_rights_survives_its_words() {
        for bits in 0..=(Rights::ALL.0 | Rights::PULL.0) {
            let rights = Rights(bits);
            if rights.has(Right::Pull) && !ACTIVITIES.iter().any(|(_, right)| rights.has(*right)) {
                continue;
            }
            let grants_any = ACTIVITIES.iter().any(|(_, right)| rights.has(*right));
            match Rights::from_words(rights.words()) {
                Ok(read) if grants_any => assert_eq!(read, rights),
                Ok(read) => assert_eq!(read.0 & !0b111, rights.0 & !0b111),
                Err(error) => {
                    assert_eq!(error, RightsError::DeleteAlone);
                    assert!(rights.has(Right::Delete) && !rights.has(Right::Push));
                }
            }
        }
    }
}
