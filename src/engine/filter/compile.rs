//! From lines to lists: merges files, resolves what a slash in front means, numbers per-directory files.
//!
//! The same code serves the options of a mirror and the per-directory files of its tree; [`Context`] is the difference.

use super::error::{FilterError, ReadFault, RuleFault, RulePlace, RuleSource};
use super::gitignore::GitRules;
use super::parse::{Flags, Prefixes, Statement, lines, statement};
use super::pattern::{Origin, Pattern};
use super::rule::{Item, Matcher, Only, Rule, Scope};
use super::{DIR_MERGES_MAX, MERGE_DEPTH_MAX, PATTERN_BYTES_MAX, RULE_FILE_BYTES_MAX, RULES_MAX};
use std::sync::Arc;

/// What `-C` excludes before anything else, as rsync's man page lists it.
const CVS_PATTERNS: &[u8] = b"RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* _$* \
    *$ *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core .svn/ .git/ .hg/ .bzr/";

/// Gives the contents of rule files. The matcher itself reads nothing.
///
/// `Ok(None)` means that there is no such file, which is normal for [`RuleFiles::in_tree`] and [`RuleFiles::above_tree`].
pub trait RuleFiles {
    /// A file that an option, or a `merge` rule among the options, names; `-` is standard input.
    fn named(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault>;

    /// The file `name` in a directory of the tree, given by its path from the root (empty for the root). The file
    /// must be looked up without following symbolic links out of the tree.
    fn in_tree(&mut self, directory: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, ReadFault>;

    /// A file in a directory above the tree, by its absolute path: what `-F` looks for.
    fn above_tree(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault>;
}

/// No files at all: for rules that name none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRuleFiles;

impl RuleFiles for NoRuleFiles {
    fn named(&mut self, _path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(None)
    }

    fn in_tree(&mut self, _directory: &[u8], _name: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(None)
    }

    fn above_tree(&mut self, _path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(None)
    }
}

/// The syntax of a per-directory file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Rsync,
    Gitignore,
}

/// A file to look for in each directory.
#[derive(Debug, Clone)]
pub(super) struct DirMerge {
    pub(super) name: Box<[u8]>,
    /// What stands before the name: the directory above the tree in which the search starts.
    pub(super) way: Option<Box<[u8]>>,
    pub(super) flags: Flags,
    pub(super) scope: Scope,
    pub(super) syntax: Syntax,
}

/// The rules of one directory's file, and those that it inherits.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) items: Vec<Item>,
    pub(super) inherited: Option<Arc<Node>>,
}

/// A per-directory file and its rules that are in force.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) file: Arc<DirMerge>,
    pub(super) rules: Option<Arc<Node>>,
    /// The sides on which the name counts as taken; a second rule for it is dropped there.
    pub(super) taken: Scope,
}

/// All per-directory files in force; the index is a file's number. One that was cleared leaves a hole.
pub(super) type Slots = Vec<Option<Slot>>;

/// What holds for all rules of a filter.
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    /// Files of rules have zero bytes instead of line ends.
    pub(super) zeros: bool,
    /// Rules without a side are for the sending side only.
    pub(super) delete_excluded: bool,
    /// The absolute path of the root of the tree, without slashes at its ends; empty if it is `/` or is not known.
    pub(super) root: Arc<[u8]>,
    /// The content of `$HOME/.cvsignore`.
    pub(super) cvs_home: Vec<u8>,
    /// The value of `$CVSIGNORE`.
    pub(super) cvs_environment: Vec<u8>,
}

impl Common {
    /// Where absolute patterns begin.
    fn absolute(&self) -> Origin {
        match self.root.is_empty() {
            true => Origin::Root,
            false => Origin::Above(Arc::clone(&self.root)),
        }
    }
}

/// Where rules are being read.
#[derive(Debug, Clone)]
pub(super) enum Context {
    /// Among the options.
    Options,
    /// In a file of this directory of the tree.
    InTree(Vec<u8>),
    /// In a file of this directory above the tree (absolute, with a slash at its end); the second leads from there to
    /// the root of the tree.
    AboveTree(Vec<u8>, Arc<[u8]>),
}

/// Reads rules into one list.
pub(super) struct Compiler<'a> {
    pub(super) common: &'a Common,
    /// What the rules are asked about; per-directory files for other questions are left out.
    pub(super) role: Scope,
    pub(super) context: Context,
    pub(super) slots: &'a mut Slots,
    pub(super) files: &'a mut dyn RuleFiles,
    pub(super) items: Vec<Item>,
    /// A `!` was read: what was inherited does not count.
    pub(super) cleared: bool,
    pub(super) depth: usize,
}

impl Compiler<'_> {
    /// Reads a file's content.
    pub(super) fn file(
        &mut self,
        content: &[u8],
        place: &RulePlace,
        template: Flags,
        prefixes: Prefixes,
    ) -> Result<(), FilterError> {
        check_size(content, place)?;
        for (line, text) in lines(content, self.common.zeros, template) {
            self.rule(&text, &place.at(line), template, prefixes)?;
        }
        Ok(())
    }

    /// Reads one rule.
    pub(super) fn rule(
        &mut self,
        text: &[u8],
        place: &RulePlace,
        template: Flags,
        prefixes: Prefixes,
    ) -> Result<(), FilterError> {
        let parsed = statement(text, template, prefixes).map_err(|(at, fault)| FilterError {
            place: place.clone(),
            column: u32::try_from(at + 1).unwrap_or(u32::MAX),
            fault,
        })?;
        let fail = |fault| fault_at(place, fault);
        match parsed {
            Statement::Clear => self.clear(),
            Statement::Pattern(flags, text) => {
                if text.len() > PATTERN_BYTES_MAX {
                    return Err(fail(RuleFault::PatternTooLong));
                }
                let scope = self.scope(flags);
                self.push(Item::Rule(self.pattern_rule(flags, scope, text, place)), place)?;
            }
            Statement::Cvs(flags) => {
                let list = Arc::new(self.cvs_list(flags, place)?);
                self.push(Item::Cvs(self.scope(flags), list), place)?;
            }
            Statement::Merge(flags, name) => self.merge(flags, name, place)?,
            Statement::DirMerge(flags, name) => self.dir_merge(flags, name, place)?,
        }
        Ok(())
    }

    pub(super) fn push(&mut self, item: Item, place: &RulePlace) -> Result<(), FilterError> {
        if self.items.len() >= RULES_MAX {
            return Err(fault_at(place, RuleFault::TooManyRules));
        }
        self.items.push(item);
        Ok(())
    }

    fn clear(&mut self) {
        for item in self.items.drain(..) {
            if let Item::DirMerge(number, _) = item {
                self.slots[number] = None;
            }
        }
        while matches!(self.slots.last(), Some(None)) {
            self.slots.pop();
        }
        self.cleared = true;
    }

    fn scope(&self, flags: Flags) -> Scope {
        match (flags.sender, flags.receiver) {
            (false, false) if self.common.delete_excluded => Scope::SENDER,
            (true, false) => Scope::SENDER,
            (false, true) => Scope::DELETE,
            _ => Scope::BOTH,
        }
    }

    pub(super) fn pattern_rule(&self, flags: Flags, scope: Scope, text: &[u8], place: &RulePlace) -> Rule {
        let (body, only) = match text {
            [body @ .., b'/'] if !body.is_empty() => (body, Only::Directories),
            _ => (text, Only::Any),
        };
        let only = if flags.xattr { Only::Xattrs } else { only };
        let origin = match &self.context {
            _ if flags.absolute => self.common.absolute(),
            Context::InTree(directory) if body.starts_with(b"/") => Origin::Below(directory.len()),
            Context::AboveTree(_, way) if body.starts_with(b"/") => Origin::Above(Arc::clone(way)),
            _ => Origin::Root,
        };
        Rule {
            include: flags.include,
            scope,
            perishable: flags.perishable,
            negate: flags.negate,
            only,
            matcher: Matcher::Pattern(Pattern::new(body, origin)),
            text: body.into(),
            place: place.clone(),
        }
    }

    /// The rules for which `-C` stands.
    fn cvs_list(&mut self, flags: Flags, place: &RulePlace) -> Result<Vec<Item>, FilterError> {
        let common = self.common;
        let built_in = Flags {
            perishable: true,
            ..flags
        };
        let lists = [
            ("the CVS list", CVS_PATTERNS, built_in),
            ("~/.cvsignore", &*common.cvs_home, flags),
            ("$CVSIGNORE", &*common.cvs_environment, flags),
        ];
        let outer = std::mem::take(&mut self.items);
        let outer_cleared = self.cleared;
        for (name, content, flags) in lists {
            // Its rules are plain words, so nothing in it can add a file.
            let list = RulePlace::whole(RuleSource::List(name));
            let read = self.file(content, &list, flags, Prefixes::Full);
            read.map_err(|error| fault_at(place, error.fault))?;
        }
        self.cleared = outer_cleared;
        Ok(std::mem::replace(&mut self.items, outer))
    }

    /// The rule that the modifier `e` adds.
    fn exclude_self(&mut self, name: &[u8], place: &RulePlace) -> Result<(), FilterError> {
        let scope = match self.context {
            Context::Options if self.common.delete_excluded => Scope::SENDER,
            _ => Scope::BOTH,
        };
        let name = &name[last_slash(name)..];
        self.push(
            Item::Rule(self.pattern_rule(Flags::default(), scope, name, place)),
            place,
        )
    }

    fn merge(&mut self, mut flags: Flags, name: &[u8], place: &RulePlace) -> Result<(), FilterError> {
        let fail = |fault| fault_at(place, fault);
        let name = if name.is_empty() { b".cvsignore" } else { name };
        if flags.exclude_self {
            self.exclude_self(name, place)?;
            flags.exclude_self = false;
        }
        if self.depth >= MERGE_DEPTH_MAX {
            return Err(fail(RuleFault::MergeTooDeep));
        }
        let (content, source) = self.named(name).map_err(fail)?;
        self.depth += 1;
        self.file(&content, &RulePlace::whole(source), flags, Prefixes::Full)?;
        self.depth -= 1;
        Ok(())
    }

    /// The content of a file that a rule names. Inside the tree, a name without a slash is looked up in the root of the
    /// tree, and one with a slash below the directory at hand: rsync does the same, since it stands in the root.
    fn named(&mut self, name: &[u8]) -> Result<(Vec<u8>, RuleSource), RuleFault> {
        let (content, source) = match &self.context {
            Context::Options => (self.files.named(name), RuleSource::File(name.into())),
            Context::AboveTree(directory, _) => {
                let path = match name {
                    [b'/', ..] => name.to_vec(),
                    _ => [directory, name].concat(),
                };
                let content = self.files.above_tree(&path);
                (content, RuleSource::AboveTree(path.into()))
            }
            Context::InTree(directory) => {
                if name.starts_with(b"/") {
                    return Err(RuleFault::OutsideTree);
                }
                let start = if name.contains(&b'/') { &**directory } else { &[] };
                let path = normal_path(start, name).ok_or(RuleFault::OutsideTree)?;
                let cut = last_slash(&path);
                let (directory, name) = (path[..cut.saturating_sub(1)].into(), path[cut..].into());
                let content = self.files.in_tree(&path[..cut.saturating_sub(1)], &path[cut..]);
                (content, RuleSource::InTree { directory, name })
            }
        };
        match content {
            Ok(Some(content)) => Ok((content, source)),
            Ok(None) => Err(RuleFault::FileMissing),
            Err(fault) => Err(RuleFault::FileUnreadable(fault)),
        }
    }

    fn dir_merge(&mut self, mut flags: Flags, name: &[u8], place: &RulePlace) -> Result<(), FilterError> {
        let name = if name.is_empty() { b".cvsignore" } else { name };
        let cut = last_slash(name);
        if matches!(&name[cut..], b"" | b"." | b"..") {
            return Err(fault_at(place, RuleFault::BadMergeName));
        }
        if flags.exclude_self {
            self.exclude_self(name, place)?;
            flags.exclude_self = false;
        }
        let scope = match (flags.has_side(), &self.context) {
            (true, _) => self.scope(flags),
            // The receiver has no use for a list that can only hold rules for the sender.
            (false, Context::Options) if self.common.delete_excluded && flags.no_prefixes => Scope::SENDER,
            _ => Scope::BOTH,
        };
        let is_option = matches!(self.context, Context::Options);
        let way = (cut > 0 && is_option).then(|| name[..cut].into());
        self.per_directory(
            DirMerge {
                name: name[cut..].into(),
                way,
                flags,
                scope,
                syntax: Syntax::Rsync,
            },
            place,
        )
    }

    /// Adds a per-directory file, unless its name is taken.
    pub(super) fn per_directory(&mut self, mut file: DirMerge, place: &RulePlace) -> Result<(), FilterError> {
        let same_name = |slot: &&Slot| slot.file.name == file.name && slot.file.syntax == file.syntax;
        let taken = self
            .slots
            .iter()
            .flatten()
            .filter(same_name)
            .fold(Scope::NONE, |all, slot| all.with(slot.taken));
        let scope = file.scope.without(taken);
        if !scope.covers(self.role) {
            return Ok(());
        }
        if self.slots.len() >= DIR_MERGES_MAX {
            return Err(fault_at(place, RuleFault::TooManyDirMerges));
        }
        file.scope = scope;
        let taken = match self.context {
            Context::Options => Scope::BOTH,
            _ => scope,
        };
        self.push(Item::DirMerge(self.slots.len(), scope), place)?;
        self.slots.push(Some(Slot {
            file: Arc::new(file),
            rules: None,
            taken,
        }));
        Ok(())
    }

    /// Reads a file in gitignore syntax.
    pub(super) fn gitignore(&mut self, content: &[u8], place: &RulePlace) -> Result<(), FilterError> {
        check_size(content, place)?;
        let base = match &self.context {
            Context::InTree(directory) => directory.len(),
            _ => 0,
        };
        let scope = self.scope(Flags::default());
        self.push(
            Item::Git(Arc::new(GitRules::new(content, base, scope, place)?)),
            place,
        )
    }
}

pub(super) fn fault_at(place: &RulePlace, fault: RuleFault) -> FilterError {
    FilterError {
        place: place.clone(),
        column: 0,
        fault,
    }
}

pub(super) fn check_size(content: &[u8], place: &RulePlace) -> Result<(), FilterError> {
    match content.len() > RULE_FILE_BYTES_MAX {
        true => Err(fault_at(place, RuleFault::FileTooLarge)),
        false => Ok(()),
    }
}

/// The index behind the last slash; 0 without one.
fn last_slash(path: &[u8]) -> usize {
    path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1)
}

/// Joins and resolves `.`, `..` and doubled slashes; `None` if the result is above the start of `base`.
pub(super) fn normal_path(base: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let mut elements: Vec<&[u8]> = Vec::new();
    for element in base
        .split(|&byte| byte == b'/')
        .chain(path.split(|&byte| byte == b'/'))
    {
        match element {
            b"" | b"." => {}
            b".." => drop(elements.pop()?),
            name => elements.push(name),
        }
    }
    Some(elements.join(&b'/'))
}
