//! One rule of rsync, from bytes to its parts (man page, "FILTER RULES IN DEPTH").

use super::error::RuleFault;

/// The modifiers of a rule. Those of a merge rule are the defaults of the rules in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    pub(super) include: bool,
    /// `/`: compared with the absolute path.
    pub(super) absolute: bool,
    /// `!`: holds for what does not match.
    pub(super) negate: bool,
    /// `p`
    pub(super) perishable: bool,
    /// `x`: for names of extended attributes.
    pub(super) xattr: bool,
    /// `s`, `r`, or none of them.
    pub(super) sender: bool,
    pub(super) receiver: bool,
    /// `-` and `+` of merge rules: lines are patterns without prefix.
    pub(super) no_prefixes: bool,
    /// `w`
    pub(super) word_split: bool,
    /// `n`
    pub(super) no_inherit: bool,
    /// `e`
    pub(super) exclude_self: bool,
    /// `C`
    pub(super) cvs: bool,
}

impl Flags {
    pub(super) fn has_side(self) -> bool {
        self.sender || self.receiver
    }

    /// What rules in a merge file take over from the rule that names it. (Sides are looked at separately.)
    fn container(self) -> Flags {
        Flags {
            include: self.include,
            absolute: self.absolute,
            negate: self.negate,
            perishable: self.perishable,
            ..Flags::default()
        }
    }
}

/// How lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefixes {
    /// As filter rules.
    Full,
    /// As patterns that may start with `+ ` or `- `, and `!` alone: what `--exclude` and `--exclude-from` take.
    Old,
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement<'a> {
    /// `!`
    Clear,
    /// A pattern.
    Pattern(Flags, &'a [u8]),
    /// `-C`: the global CVS list.
    Cvs(Flags),
    /// A file to read now.
    Merge(Flags, &'a [u8]),
    /// A file to look for in each directory.
    DirMerge(Flags, &'a [u8]),
}

/// A fault, and the index of the byte at which it is.
pub(super) type ParseFault = (usize, RuleFault);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Exclude,
    Include,
    Merge,
    DirMerge,
    Hide,
    Show,
    Protect,
    Risk,
    Clear,
}

const LONG_NAMES: [(&[u8], Verb); 9] = [
    (b"exclude", Verb::Exclude),
    (b"include", Verb::Include),
    (b"merge", Verb::Merge),
    (b"dir-merge", Verb::DirMerge),
    (b"hide", Verb::Hide),
    (b"show", Verb::Show),
    (b"protect", Verb::Protect),
    (b"risk", Verb::Risk),
    (b"clear", Verb::Clear),
];

/// Parses one line (or word). `template` holds the modifiers of the rule that named the file.
pub(super) fn statement<'a>(
    line: &'a [u8],
    template: Flags,
    prefixes: Prefixes,
) -> Result<Statement<'a>, ParseFault> {
    let defaults = template.container();
    let statement = if template.no_prefixes {
        match line {
            b"!" if template.cvs => Statement::Clear,
            _ => Statement::Pattern(defaults, line),
        }
    } else if prefixes == Prefixes::Old {
        old_style(line, defaults)?
    } else {
        full_rule(line, defaults)?
    };
    with_sides_of(template, statement)
}

fn old_style(line: &[u8], defaults: Flags) -> Result<Statement<'_>, ParseFault> {
    let (include, pattern) = match line {
        b"!" => return Ok(Statement::Clear),
        [b'-', b' ', pattern @ ..] => (false, pattern),
        [b'+', b' ', pattern @ ..] => (true, pattern),
        pattern => (defaults.include, pattern),
    };
    if pattern.is_empty() {
        return Err((line.len(), RuleFault::MissingPattern));
    }
    Ok(Statement::Pattern(Flags { include, ..defaults }, pattern))
}

fn full_rule(line: &[u8], defaults: Flags) -> Result<Statement<'_>, ParseFault> {
    let (verb, after_verb) = verb(line).ok_or((0, RuleFault::UnknownRule))?;
    if verb == Verb::Clear {
        let argument = line.get(after_verb + 1..).unwrap_or_default();
        return match argument {
            [] => Ok(Statement::Clear),
            _ => Err((after_verb + 1, RuleFault::ClearWithArgument)),
        };
    }
    let mut flags = with_verb(verb, defaults);
    let is_merge = matches!(verb, Verb::Merge | Verb::DirMerge);
    let mut at = after_verb;
    while let Some(&byte) = line.get(at).filter(|&&byte| byte != b' ' && byte != b'_') {
        modify(&mut flags, byte, is_merge, fixes_side(verb)).map_err(|fault| (at, fault))?;
        at += 1;
    }
    let argument = line.get(at + 1..).unwrap_or_default();
    match verb {
        _ if argument.is_empty() && !flags.cvs => Err((line.len(), RuleFault::MissingPattern)),
        Verb::Merge => Ok(Statement::Merge(flags, argument)),
        Verb::DirMerge => Ok(Statement::DirMerge(flags, argument)),
        _ if flags.cvs && !argument.is_empty() => Err((at + 1, RuleFault::CvsWithArgument)),
        _ if flags.cvs => Ok(Statement::Cvs(flags)),
        _ => Ok(Statement::Pattern(flags, argument)),
    }
}

fn fixes_side(verb: Verb) -> bool {
    matches!(verb, Verb::Hide | Verb::Show | Verb::Protect | Verb::Risk)
}

/// The rule's name, and the index behind it (and behind a comma).
fn verb(line: &[u8]) -> Option<(Verb, usize)> {
    let (verb, end) = match line.first()? {
        b'-' => (Verb::Exclude, 1),
        b'+' => (Verb::Include, 1),
        b'.' => (Verb::Merge, 1),
        b':' => (Verb::DirMerge, 1),
        b'H' => (Verb::Hide, 1),
        b'S' => (Verb::Show, 1),
        b'P' => (Verb::Protect, 1),
        b'R' => (Verb::Risk, 1),
        b'!' => (Verb::Clear, 1),
        _ => {
            let known = |(name, _): &&(&[u8], Verb)| {
                line.starts_with(name) && matches!(line.get(name.len()), None | Some(b' ' | b'_' | b','))
            };
            let (name, verb) = LONG_NAMES.iter().find(known)?;
            (*verb, name.len())
        }
    };
    match line.get(end) {
        Some(b',') => Some((verb, end + 1)),
        _ => Some((verb, end)),
    }
}

fn with_verb(verb: Verb, mut flags: Flags) -> Flags {
    match verb {
        Verb::Include => flags.include = true,
        Verb::Show => (flags.include, flags.sender) = (true, true),
        Verb::Hide => flags.sender = true,
        Verb::Risk => (flags.include, flags.receiver) = (true, true),
        Verb::Protect => flags.receiver = true,
        Verb::Exclude | Verb::Merge | Verb::DirMerge | Verb::Clear => {}
    }
    flags
}

fn modify(flags: &mut Flags, modifier: u8, is_merge: bool, has_side: bool) -> Result<(), RuleFault> {
    let allowed = match modifier {
        b'-' | b'+' => is_merge && !flags.no_prefixes,
        b'!' => !is_merge,
        b'C' => !flags.no_prefixes && !has_side,
        b'e' | b'n' | b'w' => is_merge,
        b'r' | b's' => !has_side,
        b'/' | b'p' | b'x' => true,
        _ => return Err(RuleFault::UnknownModifier),
    };
    if !allowed {
        return Err(RuleFault::ModifierNotAllowed);
    }
    match modifier {
        b'-' => flags.no_prefixes = true,
        b'+' => (flags.no_prefixes, flags.include) = (true, true),
        b'!' => flags.negate = true,
        b'C' => {
            (flags.no_prefixes, flags.word_split) = (true, true);
            (flags.no_inherit, flags.cvs) = (true, true);
        }
        b'e' => flags.exclude_self = true,
        b'n' => flags.no_inherit = true,
        b'w' => flags.word_split = true,
        b'r' => flags.receiver = true,
        b's' => flags.sender = true,
        b'/' => flags.absolute = true,
        b'p' => flags.perishable = true,
        _ => flags.xattr = true,
    }
    Ok(())
}

fn with_sides_of(template: Flags, statement: Statement<'_>) -> Result<Statement<'_>, ParseFault> {
    let join = |flags: Flags| match (template.has_side(), flags.has_side()) {
        (true, true) => Err((0, RuleFault::SideTwice)),
        (true, false) => Ok(Flags {
            sender: template.sender,
            receiver: template.receiver,
            ..flags
        }),
        (false, _) => Ok(flags),
    };
    Ok(match statement {
        Statement::Clear => Statement::Clear,
        Statement::Pattern(flags, text) => Statement::Pattern(join(flags)?, text),
        Statement::Cvs(flags) => Statement::Cvs(join(flags)?),
        Statement::Merge(flags, name) => Statement::Merge(join(flags)?, name),
        Statement::DirMerge(flags, name) => Statement::DirMerge(join(flags)?, name),
    })
}

/// The rules of a file: each with the number of its line (of its record, with `zeros`), without comments and empty lines.
///
/// `zeros`: they end at zero bytes instead of line ends. With `word_split` also at white space, and `#` and `;` start no
/// comment. A word that is a rule's name alone takes the next word of its line as its pattern.
pub(super) fn lines(content: &[u8], zeros: bool, template: Flags) -> Vec<(u32, Vec<u8>)> {
    let is_end = |byte: &u8| {
        if zeros {
            *byte == 0
        } else {
            matches!(byte, b'\n' | b'\r')
        }
    };
    let mut found = Vec::new();
    let (mut rest, mut number) = (content, 1);
    while !rest.is_empty() {
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        let (line, tail) = rest.split_at(end);
        if template.word_split {
            found.extend(words(line, template).into_iter().map(|word| (number, word)));
        } else if !line.is_empty() && !matches!(line[0], b'#' | b';') {
            found.push((number, line.to_vec()));
        }
        rest = match tail {
            [b'\r', b'\n', after @ ..] => after,
            [_, after @ ..] => after,
            [] => &[],
        };
        number += 1;
    }
    found
}

fn words(line: &[u8], template: Flags) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    // Whether the last word was a rule's name alone.
    let mut is_waiting = false;
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    for word in line.split(is_space).filter(|word| !word.is_empty()) {
        match found.last_mut() {
            Some(last) if is_waiting => {
                last.push(b' ');
                last.extend_from_slice(word);
                is_waiting = false;
            }
            _ => {
                let parsed = statement(word, template, Prefixes::Full);
                is_waiting = matches!(parsed, Err((_, RuleFault::MissingPattern)));
                found.push(word.to_vec());
            }
        }
    }
    found
}
