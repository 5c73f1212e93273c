//! Options in, filter out.

use super::clsync;
use super::compile::{Common, Compiler, Context, DirMerge, RuleFiles, Syntax, check_size, fault_at};
use super::error::{FilterError, ReadFault, RuleFault, RulePlace, RuleSource};
use super::expression;
use super::fingerprint::fingerprint;
use super::lsyncd;
use super::parse::{Flags, Prefixes};
use super::rule::{Item, Matcher, Only, Rule, Scope};
use super::{Filter, Inner, NamedPaths, NoRuleFiles};
use std::sync::Arc;

/// Collects options into a [`Filter`]. Call one method per option, in the order in which they were given: the first rule
/// that matches decides.
///
/// [`FilterBuilder::zeros`], [`FilterBuilder::delete_excluded`] and [`FilterBuilder::cvs_lists`] hold for the rules that
/// follow, so call them first. After an error a builder has lost rules and must be dropped.
#[derive(Debug)]
pub struct FilterBuilder {
    inner: Inner,
    /// `-C` as an option: adds its rules behind all others.
    cvs_exclude: bool,
    /// `-F` so far.
    dir_filters: u32,
}

impl FilterBuilder {
    /// No rules yet. `root` is the absolute path of the tree on this machine; rules with the modifier `/` and `-F`
    /// need it. (Empty: they treat the tree as if it were `/`.)
    pub fn new(root: &[u8]) -> FilterBuilder {
        let root = super::compile::normal_path(b"", root).unwrap_or_default();
        FilterBuilder {
            inner: Inner {
                common: Common {
                    root: root.into(),
                    ..Common::default()
                },
                ..Inner::default()
            },
            cvs_exclude: false,
            dir_filters: 0,
        }
    }

    /// `--from0`: files of rules have zero bytes instead of line ends.
    pub fn zeros(&mut self, zeros: bool) -> &mut Self {
        self.inner.common.zeros = zeros;
        self
    }

    /// `--delete-excluded`: rules without a side only hide and no longer protect.
    pub fn delete_excluded(&mut self, delete_excluded: bool) -> &mut Self {
        self.inner.common.delete_excluded = delete_excluded;
        self
    }

    /// The content of `$HOME/.cvsignore` and the value of `$CVSIGNORE`, which `-C` adds to its list.
    pub fn cvs_lists(&mut self, home: &[u8], environment: &[u8]) -> &mut Self {
        self.inner.common.cvs_home = home.to_vec();
        self.inner.common.cvs_environment = environment.to_vec();
        self
    }

    /// `--exclude PATTERN`
    pub fn exclude(&mut self, pattern: &[u8]) -> Result<&mut Self, FilterError> {
        self.old_rule("--exclude", pattern, false)
    }

    /// `--include PATTERN`
    pub fn include(&mut self, pattern: &[u8]) -> Result<&mut Self, FilterError> {
        self.old_rule("--include", pattern, true)
    }

    /// `--filter RULE`; `files` gives the files that it names.
    pub fn filter(&mut self, rule: &[u8], files: &mut dyn RuleFiles) -> Result<&mut Self, FilterError> {
        let place = RulePlace::whole(RuleSource::Option("--filter"));
        if rule.is_empty() {
            return Ok(self);
        }
        self.compile(files, |compiler| {
            compiler.rule(rule, &place, Flags::default(), Prefixes::Full)
        })
    }

    /// `--exclude-from FILE`
    pub fn exclude_from(&mut self, path: &[u8], files: &mut dyn RuleFiles) -> Result<&mut Self, FilterError> {
        self.patterns_from(path, false, files)
    }

    /// `--include-from FILE`
    pub fn include_from(&mut self, path: &[u8], files: &mut dyn RuleFiles) -> Result<&mut Self, FilterError> {
        self.patterns_from(path, true, files)
    }

    /// `-F`: the first time `: /.rsync-filter`, the second time `- .rsync-filter`.
    pub fn dir_filters(&mut self) -> Result<&mut Self, FilterError> {
        self.dir_filters += 1;
        let place = RulePlace::whole(RuleSource::Option("-F"));
        let rule: &[u8] = match self.dir_filters {
            1 => b": /.rsync-filter",
            2 => b"- .rsync-filter",
            _ => return Ok(self),
        };
        self.compile(&mut NoRuleFiles, |compiler| {
            compiler.rule(rule, &place, Flags::default(), Prefixes::Full)
        })
    }

    /// `-C`, `--cvs-exclude`: per-directory `.cvsignore` files and the CVS list, behind all other rules.
    pub fn cvs_exclude(&mut self) -> &mut Self {
        self.cvs_exclude = true;
        self
    }

    /// `--exclude-re REGEX`: an expression of the `regex` crate that is searched in the path from the root of the tree
    /// (`a/b`, no slash at the ends). It works on bytes; `(?u)` switches to Unicode.
    pub fn exclude_regex(&mut self, expression: &[u8]) -> Result<&mut Self, FilterError> {
        self.regex_rule("--exclude-re", expression, false)
    }

    /// `--include-re REGEX`, as [`FilterBuilder::exclude_regex`].
    pub fn include_regex(&mut self, expression: &[u8]) -> Result<&mut Self, FilterError> {
        self.regex_rule("--include-re", expression, true)
    }

    /// The rules file of clsync (`--rules-file`): lines of `+` or `-`, one of `f d w m s W *`, and a POSIX extended
    /// regular expression that is searched in the path from the root. `w` decides about walking, `m` about
    /// watching and `s` about sending a directory; `d` is all three, `W` is `w` and `m`.
    pub fn clsync_rules(&mut self, path: &[u8], files: &mut dyn RuleFiles) -> Result<&mut Self, FilterError> {
        let (content, place) = named_file(path, files)?;
        let rules = clsync::rules(&content, &place)?;
        self.inner.has_actions |= !rules.is_empty();
        self.add_rules(rules)
    }

    /// lsyncd's `exclude = { PATTERN, ... }`, with the meaning that lsyncd itself gives to patterns.
    pub fn lsyncd_exclude(&mut self, pattern: &[u8]) -> Result<&mut Self, FilterError> {
        let place = RulePlace::whole(RuleSource::Option("exclude"));
        self.add_rules(vec![lsyncd::rule(pattern, false, &place)?])
    }

    /// lsyncd's `excludeFrom = FILE`.
    pub fn lsyncd_exclude_from(
        &mut self,
        path: &[u8],
        files: &mut dyn RuleFiles,
    ) -> Result<&mut Self, FilterError> {
        let (content, place) = named_file(path, files)?;
        self.add_rules(lsyncd::exclude_list(&content, &place)?)
    }

    /// lsyncd's `filter = { RULE, ... }`: `+ PATTERN` or `- PATTERN`.
    pub fn lsyncd_filter(&mut self, rule: &[u8]) -> Result<&mut Self, FilterError> {
        let place = RulePlace::whole(RuleSource::Option("filter"));
        self.add_rules(lsyncd::filter_list(rule, &place)?)
    }

    /// lsyncd's `filterFrom = FILE`.
    pub fn lsyncd_filter_from(
        &mut self,
        path: &[u8],
        files: &mut dyn RuleFiles,
    ) -> Result<&mut Self, FilterError> {
        let (content, place) = named_file(path, files)?;
        self.add_rules(lsyncd::filter_list(&content, &place)?)
    }

    /// A file in gitignore syntax, for the whole tree. Where none of its patterns matches, the rules behind it decide.
    pub fn gitignore(&mut self, path: &[u8], files: &mut dyn RuleFiles) -> Result<&mut Self, FilterError> {
        let (content, place) = named_file(path, files)?;
        self.compile(&mut NoRuleFiles, |compiler| compiler.gitignore(&content, &place))
    }

    /// Per-directory files in gitignore syntax, usually named `.gitignore`. That of the deepest directory decides first.
    pub fn dir_gitignore(&mut self, name: &driftless_protocol::Name) -> Result<&mut Self, FilterError> {
        let place = RulePlace::whole(RuleSource::Option("--gitignore"));
        let file = DirMerge {
            name: name.as_bytes().into(),
            way: None,
            flags: Flags::default(),
            scope: Scope::BOTH,
            syntax: Syntax::Gitignore,
        };
        self.compile(&mut NoRuleFiles, |compiler| compiler.per_directory(file, &place))
    }

    /// `--min-size`, in bytes: smaller regular files are not sent.
    pub fn min_size(&mut self, bytes: u64) -> &mut Self {
        self.inner.min_size = bytes;
        self
    }

    /// `--max-size`, in bytes: larger regular files are not sent.
    pub fn max_size(&mut self, bytes: u64) -> &mut Self {
        self.inner.max_size = Some(bytes);
        self
    }

    /// `--one-file-system`
    pub fn one_file_system(&mut self, stay: bool) -> &mut Self {
        self.inner.one_file_system = stay;
        self
    }

    /// `--files-from`, or a source that is a single file: nothing but these paths and the directories above them.
    pub fn only_named(&mut self, paths: NamedPaths) -> &mut Self {
        self.inner.named = Some(paths);
        self
    }

    /// The filter. It fails only if the CVS lists are beyond the limits.
    pub fn build(mut self) -> Result<Filter, FilterError> {
        if self.cvs_exclude {
            let place = RulePlace::whole(RuleSource::Option("--cvs-exclude"));
            for rule in [&b":C"[..], b"-C"] {
                self.compile(&mut NoRuleFiles, |compiler| {
                    compiler.rule(rule, &place, Flags::default(), Prefixes::Full)
                })?;
            }
        }
        let inner = &mut self.inner;
        let is_sided = |item: &Item| match item {
            Item::Rule(rule) => rule.scope != Scope::BOTH,
            Item::DirMerge(..) => true,
            Item::Cvs(scope, _) => *scope != Scope::BOTH,
            Item::Git(rules) => rules.scope() != Scope::BOTH,
        };
        inner.has_sides = inner.items.iter().any(is_sided);
        inner.fingerprint = fingerprint(inner);
        Ok(Filter {
            inner: Arc::new(self.inner),
        })
    }

    fn old_rule(
        &mut self,
        option: &'static str,
        text: &[u8],
        include: bool,
    ) -> Result<&mut Self, FilterError> {
        if text.is_empty() {
            return Ok(self);
        }
        let place = RulePlace::whole(RuleSource::Option(option));
        let template = Flags {
            include,
            ..Flags::default()
        };
        self.compile(&mut NoRuleFiles, |compiler| {
            compiler.rule(text, &place, template, Prefixes::Old)
        })
    }

    fn patterns_from(
        &mut self,
        path: &[u8],
        include: bool,
        files: &mut dyn RuleFiles,
    ) -> Result<&mut Self, FilterError> {
        let (content, place) = named_file(path, files)?;
        let template = Flags {
            include,
            ..Flags::default()
        };
        self.compile(files, |compiler| {
            compiler.file(&content, &place, template, Prefixes::Old)
        })
    }

    fn regex_rule(
        &mut self,
        option: &'static str,
        text: &[u8],
        include: bool,
    ) -> Result<&mut Self, FilterError> {
        let place = RulePlace::whole(RuleSource::Option(option));
        let expression = std::str::from_utf8(text).map_err(|_| fault_at(&place, RuleFault::NotText))?;
        let regex = expression::compile(expression).map_err(|fault| fault_at(&place, fault))?;
        self.add_rules(vec![Rule {
            include,
            scope: match self.inner.common.delete_excluded {
                true => Scope::SENDER,
                false => Scope::BOTH,
            },
            perishable: false,
            negate: false,
            only: Only::Any,
            matcher: Matcher::Regex(regex),
            text: text.into(),
            place,
        }])
    }

    /// Adds rules of foreign kinds.
    fn add_rules(&mut self, rules: Vec<Rule>) -> Result<&mut Self, FilterError> {
        let delete_excluded = self.inner.common.delete_excluded;
        self.compile(&mut NoRuleFiles, |compiler| {
            for mut rule in rules {
                if delete_excluded {
                    rule.scope = rule.scope.without(Scope::DELETE);
                }
                let place = rule.place.clone();
                compiler.push(Item::Rule(rule), &place)?;
            }
            Ok(())
        })
    }

    /// Runs the compiler on the list of options.
    fn compile(
        &mut self,
        files: &mut dyn RuleFiles,
        work: impl FnOnce(&mut Compiler<'_>) -> Result<(), FilterError>,
    ) -> Result<&mut Self, FilterError> {
        let inner = &mut self.inner;
        let mut slots = std::mem::take(&mut inner.slots);
        let mut compiler = Compiler {
            common: &inner.common,
            role: Scope::BOTH,
            context: Context::Options,
            slots: &mut slots,
            files,
            items: std::mem::take(&mut inner.items),
            cleared: false,
            depth: 0,
        };
        work(&mut compiler)?;
        inner.items = compiler.items;
        inner.slots = slots;
        Ok(self)
    }
}

/// The content of a file that an option names, and its place.
fn named_file(path: &[u8], files: &mut dyn RuleFiles) -> Result<(Vec<u8>, RulePlace), FilterError> {
    let place = RulePlace::whole(RuleSource::File(path.into()));
    let content = match files.named(path) {
        Ok(Some(content)) => content,
        Ok(None) => return Err(fault_at(&place, RuleFault::FileMissing)),
        Err(fault) => return Err(fault_at(&place, RuleFault::FileUnreadable(fault))),
    };
    check_size(&content, &place)?;
    Ok((content, place))
}

/// Names [`ReadFault`] for an error of the system's, by its kind.
impl From<std::io::ErrorKind> for ReadFault {
    fn from(kind: std::io::ErrorKind) -> ReadFault {
        match kind {
            std::io::ErrorKind::PermissionDenied => ReadFault::Denied,
            std::io::ErrorKind::IsADirectory => ReadFault::NotAFile,
            _ => ReadFault::Failed,
        }
    }
}
