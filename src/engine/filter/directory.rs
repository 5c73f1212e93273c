//! The rules in force in one directory, and what they say about its entries.

use super::Filter;
use super::compile::{Compiler, Context, DirMerge, Node, RuleFiles, Slots, Syntax, fault_at, normal_path};
use super::error::{FilterError, RuleFault, RulePlace, RuleSource};
use super::named::Named;
use super::parse::Prefixes;
use super::pattern::Subject;
use super::rule::{Entry, Item, Only, RuleRef, Scope};
use driftless_protocol::{Kind, Name};
use std::sync::Arc;

/// What happens to an entry that only the receiver has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It stays.
    Protected,
    /// A mirror that deletes removes it.
    AtRisk,
}

/// Whose questions the rules of a tree answer. Per-directory files that only concern the other side are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The tree is a source: what is sent. [`Verdict::delete`] means nothing.
    Source,
    /// The tree is a receiver's: what may be deleted. Only [`Verdict::delete`] means anything.
    Target,
    /// Both, by the same files: a source that decides about deletions for its targets.
    Both,
}

impl Role {
    fn scope(self) -> Scope {
        match self {
            Role::Source => Scope::SENDER,
            Role::Target => Scope::DELETE,
            Role::Both => Scope::BOTH,
        }
    }
}

/// What the filter says about one entry.
///
/// It speaks of the entry alone and takes for granted that the directories above are walked; [`super::Cursor`] asks
/// about them, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The entry is part of the mirror.
    pub transfer: bool,
    /// The directory is walked into. It differs from `transfer` only under clsync's rules: such a directory is made
    /// on a target only when something below it is sent. `false` for other kinds.
    pub descend: bool,
    /// Events in the directory count. It differs from `descend` only under clsync's rules.
    pub watch: bool,
    /// Whether a mirror that deletes may delete it.
    pub delete: Deletion,
    /// The rule behind `transfer`; `None` if none matched.
    pub by: Option<RuleRef<'a>>,
    /// The rule behind `delete`; `None` if none matched.
    pub delete_by: Option<RuleRef<'a>>,
}

/// The rules in force in one directory. Cloning is cheap; a walk keeps one per directory on its way down.
#[derive(Debug, Clone)]
pub struct DirRules {
    filter: Filter,
    role: Scope,
    path: Arc<[u8]>,
    slots: Arc<Slots>,
}

impl DirRules {
    /// The rules in the root of the tree. Reads the per-directory files there, and those above the tree that a rule
    /// such as `-F` asks for.
    pub(super) fn root(
        filter: &Filter,
        role: Role,
        files: &mut dyn RuleFiles,
    ) -> Result<DirRules, FilterError> {
        let mut reader = Reader {
            filter,
            role: role.scope(),
            slots: filter.inner.slots.clone(),
            files,
        };
        for number in 0..reader.slots.len() {
            reader.read_above(number)?;
        }
        let rules = DirRules {
            filter: filter.clone(),
            role: reader.role,
            path: Arc::default(),
            slots: Arc::new(reader.slots),
        };
        rules.read(files)
    }

    /// The rules in the subdirectory `name`. Reads its per-directory files.
    ///
    /// On an error the directory must neither be sent from nor deleted in: its rules are not known.
    pub fn enter(&self, name: &Name, files: &mut dyn RuleFiles) -> Result<DirRules, FilterError> {
        let mut path = self.path.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        DirRules {
            filter: self.filter.clone(),
            role: self.role,
            path: path.into(),
            slots: Arc::clone(&self.slots),
        }
        .read(files)
    }

    /// The directory's path from the root of the tree.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The names of the files that hold rules for this directory: a change to one of them changes its rules.
    pub fn rule_files(&self) -> impl Iterator<Item = &[u8]> {
        self.slots.iter().flatten().map(|slot| &*slot.file.name)
    }

    /// What the filter says about an entry of this directory.
    pub fn verdict(&self, name: &Name, kind: Kind) -> Verdict<'_> {
        self.judge(name, kind, false)
    }

    /// As [`DirRules::verdict`], for an entry of a directory that is itself being removed: perishable rules do not hold
    /// there.
    pub fn verdict_in_removed(&self, name: &Name, kind: Kind) -> Verdict<'_> {
        self.judge(name, kind, true)
    }

    fn judge(&self, name: &Name, kind: Kind, is_removed: bool) -> Verdict<'_> {
        let is_directory = kind == Kind::Directory;
        let entry = Entry {
            subject: Subject {
                directory: &self.path,
                name: name.as_bytes(),
                is_directory,
            },
            is_regular: kind == Kind::File,
        };
        match self
            .filter
            .inner
            .named
            .as_ref()
            .map(|paths| paths.find(entry.subject))
        {
            Some(Named::Outside) => return outside(),
            Some(Named::Parent) => return parent(),
            Some(Named::Listed | Named::Below) | None => {}
        }
        let inner = &self.filter.inner;
        let by = self.decide(&inner.items, entry, Scope::TRANSFER, false);
        let transfer = by.is_none_or(|rule| rule.include);
        let (mut descend, mut watch, mut delete_by) = (transfer, transfer, by);
        if inner.has_actions {
            let allows = |question| {
                self.decide(&inner.items, entry, question, false)
                    .is_none_or(|rule| rule.include)
            };
            (descend, watch) = (allows(Scope::WALK), allows(Scope::WATCH));
        }
        if inner.has_sides || is_removed {
            delete_by = self.decide(&inner.items, entry, Scope::DELETE, is_removed);
        }
        Verdict {
            transfer,
            descend: descend && is_directory,
            watch: watch && is_directory,
            delete: match delete_by {
                Some(rule) if !rule.include => Deletion::Protected,
                _ => Deletion::AtRisk,
            },
            by,
            delete_by,
        }
    }

    /// The first rule of a list that matches.
    fn decide<'a>(
        &'a self,
        items: &'a [Item],
        entry: Entry<'_>,
        question: Scope,
        is_removed: bool,
    ) -> Option<RuleRef<'a>> {
        items.iter().find_map(|item| match item {
            Item::Rule(rule) => {
                let is_asked = rule.scope.covers(question) && rule.only != Only::Xattrs;
                (is_asked && !(is_removed && rule.perishable) && rule.matches(entry))
                    .then(|| RuleRef::of(rule))
            }
            Item::DirMerge(number, scope) if scope.covers(question) => {
                let mut node = self.slots.get(*number)?.as_ref()?.rules.as_ref();
                while let Some(rules) = node {
                    let found = self.decide(&rules.items, entry, question, is_removed);
                    if found.is_some() {
                        return found;
                    }
                    node = rules.inherited.as_ref();
                }
                None
            }
            Item::Cvs(scope, list) if scope.covers(question) => {
                self.decide(list, entry, question, is_removed)
            }
            Item::Git(rules) => rules.decide(entry.subject, question),
            Item::DirMerge(..) | Item::Cvs(..) => None,
        })
    }

    /// Reads the files of this directory. A file may name further ones, which are then read, too.
    fn read(self, files: &mut dyn RuleFiles) -> Result<DirRules, FilterError> {
        if self.slots.is_empty() {
            return Ok(self);
        }
        let mut reader = Reader {
            filter: &self.filter,
            role: self.role,
            slots: Slots::clone(&self.slots),
            files,
        };
        let (mut number, mut has_changed) = (0, false);
        while number < reader.slots.len() {
            has_changed |= reader.read_here(number, &self.path)?;
            number += 1;
        }
        let slots = reader.slots;
        Ok(match has_changed {
            true => DirRules {
                slots: Arc::new(slots),
                ..self
            },
            // Most directories hold no such file and share what they inherit.
            false => self,
        })
    }
}

/// Reads per-directory files into their slots.
struct Reader<'a> {
    filter: &'a Filter,
    role: Scope,
    slots: Slots,
    files: &'a mut dyn RuleFiles,
}

impl Reader<'_> {
    /// The file of a slot, unless it only concerns the other side.
    fn wanted(&self, number: usize) -> Option<Arc<DirMerge>> {
        let slot = self.slots[number].as_ref()?;
        slot.file.scope.covers(self.role).then(|| Arc::clone(&slot.file))
    }

    /// Turns to a new directory of the tree, and reads a slot's file there; whether the slot's rules have changed.
    fn read_here(&mut self, number: usize, directory: &[u8]) -> Result<bool, FilterError> {
        let Some(file) = self.wanted(number) else {
            return Ok(false);
        };
        let dropped = file.flags.no_inherit && self.take_rules(number).is_some();
        let place = RulePlace::whole(RuleSource::InTree {
            directory: directory.into(),
            name: file.name.clone(),
        });
        let content = self.files.in_tree(directory, &file.name);
        match content.map_err(|fault| fault_at(&place, RuleFault::FileUnreadable(fault)))? {
            None => Ok(dropped),
            Some(content) => {
                self.add(number, &content, Context::InTree(directory.to_vec()), &place)?;
                Ok(true)
            }
        }
    }

    /// Reads a slot's files in the directories above the tree, from the one that the rule names downwards.
    fn read_above(&mut self, number: usize) -> Result<(), FilterError> {
        let root = Arc::clone(&self.filter.inner.common.root);
        let Some(file) = self.wanted(number) else {
            return Ok(());
        };
        let Some(start) = file.way.as_deref().and_then(|way| start_of_search(&root, way)) else {
            return Ok(());
        };
        // The ends of the paths of the directories from the start to the root's parent; 0 is `/`.
        let inner_ends = (start + 1..root.len()).filter(|&at| root[at] == b'/');
        for end in std::iter::once(start).chain(inner_ends) {
            let mut directory = b"/".to_vec();
            if end > 0 {
                directory.extend_from_slice(&root[..end]);
                directory.push(b'/');
            }
            let path = [&*directory, &file.name].concat();
            let place = RulePlace::whole(RuleSource::AboveTree((*path).into()));
            let content = self.files.above_tree(&path);
            if let Some(content) =
                content.map_err(|fault| fault_at(&place, RuleFault::FileUnreadable(fault)))?
            {
                let below = root[end..].strip_prefix(b"/").unwrap_or(&root[end..]);
                self.add(
                    number,
                    &content,
                    Context::AboveTree(directory, below.into()),
                    &place,
                )?;
            }
            if file.flags.no_inherit {
                self.take_rules(number);
            }
        }
        Ok(())
    }

    fn take_rules(&mut self, number: usize) -> Option<Arc<Node>> {
        self.slots.get_mut(number)?.as_mut()?.rules.take()
    }

    /// Puts a file's rules before those that its slot inherits.
    fn add(
        &mut self,
        number: usize,
        content: &[u8],
        context: Context,
        place: &RulePlace,
    ) -> Result<(), FilterError> {
        let Some(file) = self.wanted(number) else {
            return Ok(());
        };
        let mut inherited = self.take_rules(number);
        let mut compiler = Compiler {
            common: &self.filter.inner.common,
            role: self.role,
            context,
            slots: &mut self.slots,
            files: &mut *self.files,
            items: Vec::new(),
            cleared: false,
            depth: 0,
        };
        match file.syntax {
            Syntax::Rsync => compiler.file(content, place, file.flags, Prefixes::Full)?,
            Syntax::Gitignore => compiler.gitignore(content, place)?,
        }
        if compiler.cleared {
            inherited = None;
        }
        let items = compiler.items;
        if let Some(slot) = self.slots.get_mut(number).and_then(Option::as_mut) {
            slot.rules = match items.is_empty() {
                true => inherited,
                false => Some(Arc::new(Node { items, inherited })),
            };
        }
        Ok(())
    }
}

/// The length of the part of the root's path at which a search from `way` on starts; `None` if that is not above it.
fn start_of_search(root: &[u8], way: &[u8]) -> Option<usize> {
    let base = if way.starts_with(b"/") { &[][..] } else { root };
    let start = normal_path(base, way)?;
    let is_above = root.len() > start.len()
        && root.starts_with(&start)
        && (start.is_empty() || root[start.len()] == b'/');
    is_above.then_some(start.len())
}

/// Outside of what `--files-from` names, nothing is looked at.
fn outside() -> Verdict<'static> {
    Verdict {
        transfer: false,
        descend: false,
        watch: false,
        delete: Deletion::Protected,
        by: None,
        delete_by: None,
    }
}

/// Directories above a named path are part of the mirror whatever the rules say.
fn parent() -> Verdict<'static> {
    Verdict {
        transfer: true,
        descend: true,
        watch: true,
        delete: Deletion::Protected,
        by: None,
        delete_by: None,
    }
}
