//! From the calls of a configuration to mirrors, each key with what became of it.

mod sync;

use super::Source;
use super::keys::{Fate, SETTINGS, fate};
use super::lines::Lines;
use super::place::{Modules, Place, name_of, unique};
use super::value::{Call, Evaluation, Failure, Table, Value};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use sync::{Sync, sync};

/// Why something is there that no line says.
const UNSAID: &str = "lsyncd's own, where nothing is said";

/// The keys that a configuration of ours may have. Those that this version lacks are not written.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// In a `[[mirror]]`.
    pub mirror: BTreeSet<String>,
    /// In a `[[module]]`.
    pub module: BTreeSet<String>,
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is in the result, or always done.
    Carried,
    /// Something else does what it was for.
    Replaced,
    /// It has no meaning here, and nothing is lost.
    Dropped,
    /// driftless does it otherwise, and that harms nothing.
    Differs,
    /// driftless would do something else to the target, so the mirror is not active.
    Stops,
}

/// One key, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Where it stands, as far as that is known.
    pub line: Option<u32>,
    /// Its name, as in `rsync.bwlimit`.
    pub key: String,
    /// Its value, shortened.
    pub value: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What it is in the result, such as `delay = "15s"`.
    pub to: Option<String>,
    /// Why.
    pub text: String,
}

impl Finding {
    /// The key with its value, as in Lua.
    pub(super) fn what(&self) -> String {
        match self.value.as_str() {
            "" => self.key.clone(),
            value => format!("{} = {value}", self.key),
        }
    }

    /// The finding as the reason for which a mirror is not active.
    pub(super) fn reason(&self) -> String {
        format!("{}: {}", self.what(), self.text)
    }
}

/// A value of a key of ours.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// `true` or `false`.
    Switch(bool),
    /// A text.
    Text(String),
    /// An array of texts.
    List(Vec<String>),
}

/// A mirror that was made of a sync, or of several that differ in their targets only.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Where the syncs stand.
    pub lines: Vec<u32>,
    /// What it is called; unique.
    pub name: String,
    /// The tree; none if the sync has none.
    pub source: Option<String>,
    /// Where it goes to.
    pub targets: Vec<String>,
    /// All else.
    pub entries: Vec<(String, Setting)>,
    /// Why it is not active; empty if it is.
    pub stops: Vec<String>,
    /// What became of its keys.
    pub findings: Vec<Finding>,
}

/// A machine that has to become a receiver.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Receiver {
    pub(super) host: String,
    pub(super) modules: Vec<Module>,
}

/// A module that it has to offer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Module {
    pub(super) name: String,
    /// Where it is; relative to a home if it does not begin with a slash; none if only rsync's daemon knows.
    pub(super) directory: Option<String>,
    pub(super) entries: Vec<(String, Setting)>,
}

/// All that a configuration became.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// For `[settings]`.
    pub settings: Vec<(String, Setting)>,
    /// In the order of the syncs.
    pub mirrors: Vec<Draft>,
    /// What became of the keys of `settings`.
    pub findings: Vec<Finding>,
    pub(super) receivers: Vec<Receiver>,
}

/// Makes mirrors of what a configuration did.
pub fn translate(
    evaluation: &Evaluation,
    source: &Source,
    vocabulary: &Vocabulary,
) -> Result<Import, Failure> {
    let lines = Lines::new(&source.text);
    let mut import = Import::default();
    let (mut known, mut syncs) = (Table::default(), Vec::new());
    for (at, (line, call)) in evaluation.calls.iter().enumerate() {
        let until = evaluation.calls[at + 1..]
            .iter()
            .map(|(line, _)| *line)
            .find(|next| next > line);
        let scope = Scope {
            lines: &lines,
            from: *line,
            until: until.unwrap_or(u32::MAX),
        };
        match call {
            Call::Settings(table) => settings(table, &mut known, &scope, &mut import),
            Call::Sync(table) => syncs.push(sync(table, &known, &scope, vocabulary)),
        }
    }
    if syncs.is_empty() {
        return Err(Failure::new(
            None,
            "it does not call sync{}, so there is nothing to mirror",
        ));
    }
    if !import.settings.iter().any(|(key, _)| key == "writes") {
        import
            .settings
            .push(("writes".to_owned(), Setting::Text("close".to_owned())));
        import.findings.push(Finding {
            line: None,
            key: "settings.inotifyMode".to_owned(),
            value: "\"CloseWrite\"".to_owned(),
            outcome: Outcome::Carried,
            to: Some("writes = \"close\"".to_owned()),
            text: UNSAID.to_owned(),
        });
    }
    import.findings.extend(surroundings(evaluation));
    two_ways(&mut syncs);
    let modules = Modules::of(syncs.iter().filter_map(|sync| sync.place.as_ref()));
    name_all(&mut syncs);
    for sync in &mut syncs {
        aim(sync, &modules);
    }
    import.receivers = receivers(&syncs, &modules);
    import.mirrors = joined(syncs);
    Ok(import)
}

/// The part of a file in which the keys of a call are looked for.
pub(super) struct Scope<'a> {
    lines: &'a Lines,
    pub(super) from: u32,
    until: u32,
}

impl Scope<'_> {
    /// The line of a key; `rsync.bwlimit` is looked for by its last part.
    pub(super) fn line(&self, key: &str, value: &Value) -> Option<u32> {
        let last = key.rsplit('.').next().unwrap_or(key);
        let text = match value {
            Value::Text(text) => text,
            _ => "",
        };
        let found = self.lines.of(last, text, self.from.max(1), self.until);
        found.or((self.from > 0).then_some(self.from))
    }
}

fn settings(table: &Table, known: &mut Table, scope: &Scope<'_>, import: &mut Import) {
    let switches = table.items().filter_map(|item| match item {
        Value::Text(name) => Some((name.clone(), Value::Bool(true))),
        _ => None,
    });
    let named = table
        .named
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()));
    for (key, value) in named.chain(switches.collect::<Vec<_>>()) {
        let mut finding = Finding {
            line: scope.line(&key, &value),
            key: format!("settings.{}", key.escape_debug()),
            value: value.to_string(),
            outcome: Outcome::Dropped,
            to: None,
            text: "lsyncd does not know it, either".to_owned(),
        };
        match fate(&SETTINGS, &key) {
            Some(Fate::Carried(to)) => carry_setting(&key, &value, to, &mut finding, import),
            Some(_) if key == "onepass" && !value.holds() => finding.text = "off, as it is here".to_owned(),
            Some(Fate::Replaced(text) | Fate::Stops(text)) => {
                (finding.outcome, finding.text) = (Outcome::Replaced, text.to_owned());
            }
            Some(Fate::Dropped(text)) => finding.text = text.to_owned(),
            None => {}
        }
        import.findings.push(finding);
        known.named.insert(key, value);
    }
}

fn carry_setting(key: &str, value: &Value, to: &'static str, finding: &mut Finding, import: &mut Import) {
    finding.outcome = Outcome::Carried;
    finding.text = String::new();
    let setting = match (key, value) {
        ("pidfile", Value::Text(path)) if path.starts_with('/') => Some(("pid-file", path.clone())),
        ("statusFile", Value::Text(path)) if path.starts_with('/') => Some(("status-file", path.clone())),
        // It comes after the file, in the order of names.
        ("statusInterval", Value::Number(seconds))
            if import.settings.iter().any(|(key, _)| key == "status-file") =>
        {
            let seconds = seconds.round().clamp(1.0, 86_400.0);
            Some(("status-interval", format!("{seconds}s")))
        }
        ("statusInterval", _) => {
            finding.outcome = Outcome::Dropped;
            finding.text = "there is no status file".to_owned();
            None
        }
        ("pidfile" | "statusFile", _) => {
            finding.outcome = Outcome::Dropped;
            finding.text = "it is no path that begins with a slash".to_owned();
            None
        }
        ("inotifyMode", Value::Text(mode)) => match mode.as_str() {
            "CloseWrite" => Some(("writes", "close".to_owned())),
            "Modify" => Some(("writes", "settle".to_owned())),
            "CloseWrite or Modify" => Some(("writes", "both".to_owned())),
            _ => {
                finding.outcome = Outcome::Dropped;
                finding.text = "lsyncd does not know it, either".to_owned();
                None
            }
        },
        _ => {
            finding.text = to.to_owned();
            None
        }
    };
    if let Some((key, text)) = setting {
        finding.to = Some(format!("{key} = {text:?}"));
        import.settings.retain(|(other, _)| other != key);
        import.settings.push((key.to_owned(), Setting::Text(text)));
    }
}

fn surroundings(evaluation: &Evaluation) -> impl Iterator<Item = Finding> {
    evaluation.surroundings.iter().map(|(line, what)| Finding {
        line: Some(*line),
        key: what.clone(),
        value: String::new(),
        outcome: Outcome::Replaced,
        to: None,
        text: "what it gave now stands in the result, and does not change any more".to_owned(),
    })
}

/// Two syncs that copy the same trees to each other.
fn two_ways(syncs: &mut [Sync]) {
    let ends: Vec<_> = syncs
        .iter()
        .map(|sync| {
            (
                sync.draft.source.clone(),
                sync.place.clone(),
                sync.draft.lines.clone(),
            )
        })
        .collect();
    for (at, sync) in syncs.iter_mut().enumerate() {
        let Some(Place::Here(target)) = &sync.place else {
            continue;
        };
        let opposite = ends.iter().enumerate().find(|(other, (source, place, _))| {
            let back = matches!(place, Some(Place::Here(back)) if Some(back) == sync.draft.source.as_ref());
            *other != at && back && source.as_ref() == Some(target)
        });
        if let Some((_, (_, _, lines))) = opposite {
            let line = lines.first().copied().unwrap_or_default();
            let text = format!(
                "the sync of line {line} mirrors the same trees the other way round; a mirror has one source, so activate \
                 one of the two at most"
            );
            sync.draft.stops.push(text);
        }
    }
}

fn name_all(syncs: &mut [Sync]) {
    let mut taken = BTreeSet::new();
    let mut of_source: BTreeMap<String, usize> = BTreeMap::new();
    for sync in syncs.iter() {
        if let Some(source) = &sync.draft.source {
            *of_source.entry(source.clone()).or_default() += 1;
        }
    }
    for sync in syncs {
        let draft = &mut sync.draft;
        let source = draft.source.clone().unwrap_or_default();
        let name = match &sync.name {
            Some(name) => name_of(name),
            None => name_of(&source),
        };
        let host = match &sync.place {
            Some(Place::There { host, .. } | Place::Module { host, .. }) => Some(format!(
                "{name}-{}",
                host.trim_matches(['[', ']']).replace(':', "-")
            )),
            _ => None,
        };
        draft.name = unique(&mut taken, name, host);
    }
}

/// Writes down where a sync goes to.
fn aim(sync: &mut Sync, modules: &Modules) {
    let Some(place) = &sync.place else { return };
    let target = modules.target(place);
    for finding in &mut sync.draft.findings {
        if matches!(finding.key.as_str(), "target" | "targetdir") && finding.outcome == Outcome::Carried {
            finding.to = Some(format!("targets = [{target:?}]"));
        }
    }
    sync.draft.targets.push(target);
}

fn receivers(syncs: &[Sync], modules: &Modules) -> Vec<Receiver> {
    let mut hosts: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for (host, directory, name) in modules.iter() {
        hosts.entry(host.to_owned()).or_default().push(Module {
            name: name.to_owned(),
            directory: Some(directory.to_owned()),
            entries: Vec::new(),
        });
    }
    for sync in syncs {
        let (host, name) = match &sync.place {
            Some(Place::Module { host, module, .. }) => (host.clone(), module.clone()),
            Some(place @ Place::There { host, .. }) => {
                let target = modules.target(place);
                let name = target[host.len()..].trim_start_matches(':').split('/').next();
                (host.clone(), name.unwrap_or_default().to_owned())
            }
            _ => continue,
        };
        let offered = hosts.entry(host).or_default();
        let at = offered
            .iter()
            .position(|module| module.name == name)
            .unwrap_or_else(|| {
                offered.push(Module {
                    name,
                    directory: None,
                    entries: Vec::new(),
                });
                offered.len() - 1
            });
        for entry in &sync.theirs {
            if !offered[at].entries.contains(entry) {
                offered[at].entries.push(entry.clone());
            }
        }
    }
    hosts
        .into_iter()
        .map(|(host, modules)| Receiver { host, modules })
        .collect()
}

/// Makes one mirror of syncs that differ in their targets only.
fn joined(syncs: Vec<Sync>) -> Vec<Draft> {
    let mut mirrors: Vec<Draft> = Vec::new();
    for Sync { draft, .. } in syncs {
        // A limit is that of a sync in lsyncd, and of a mirror with all its targets here.
        let is_apart = !draft.stops.is_empty() || draft.entries.iter().any(|(key, _)| key == "bwlimit");
        let like = mirrors.iter_mut().find(|mirror| {
            !is_apart
                && mirror.stops.is_empty()
                && mirror.source == draft.source
                && mirror.entries == draft.entries
                && !mirror.targets.iter().any(|target| draft.targets.contains(target))
        });
        match like {
            Some(mirror) => {
                mirror.targets.extend(draft.targets);
                mirror.lines.extend(
                    draft
                        .lines
                        .iter()
                        .filter(|line| !mirror.lines.contains(line))
                        .collect::<Vec<_>>(),
                );
                for finding in draft.findings {
                    if !mirror.findings.contains(&finding) {
                        mirror.findings.push(finding);
                    }
                }
            }
            None => mirrors.push(draft),
        }
    }
    mirrors
}
