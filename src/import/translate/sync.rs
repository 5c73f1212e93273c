//! One call of `sync`, key by key.

mod cron;
mod options;
mod rules;

use super::{Draft, Finding, Outcome, Scope, Setting, UNSAID, Vocabulary};
use crate::import::keys::{ACTION, Fate, SSH, SYNC, fate};
use crate::import::layers::{Merged, merge};
use crate::import::place::{Place, trimmed};
use crate::import::rsync::Rule;
use crate::import::value::{Table, Value};
use crate::import::write::entry;

const UNKNOWN: &str = "lsyncd does not look at it, either";
const TWO_WAYS: &str = "this is lsyncd's recipe for two ways (`update` with `temp_dir`, on both machines): each side kept what was \
     newer, and neither deleted safely; a mirror has one source, so make one side the source and keep the other read-only";
const OWN_ACTIONS: &str = "what it does for each change are commands or functions of its own, which are not run; a program that reads \
     `driftless daemon --json` can do something whenever a mirror comes into sync";

/// A sync that was looked at.
pub(super) struct Sync {
    pub(super) draft: Draft,
    /// Where it goes to, in rsync's terms.
    pub(super) place: Option<Place>,
    /// Its own name.
    pub(super) name: Option<String>,
    /// Keys that the module on the other machine needs.
    pub(super) theirs: Vec<(String, Setting)>,
}

/// Which of lsyncd's ways to copy a sync uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsync,
    RsyncSsh,
    Direct,
    /// None: it has actions of its own.
    Own,
}

/// When what the source lacks is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Deletes {
    at_start: bool,
    later: bool,
}

/// Looks at a call of `sync`; `known` is what `settings` said before.
pub(super) fn sync(call: &Table, known: &Table, scope: &Scope<'_>, vocabulary: &Vocabulary) -> Sync {
    let mut merged = merge(call);
    // settings win over syncs, as in lsyncd.
    for key in ["delay", "maxDelays", "maxProcesses"] {
        if let Some(value) = known.get(key) {
            merged.all.named.insert(key.to_owned(), value.clone());
        }
    }
    let mut reader = Reader {
        merged: &merged,
        scope,
        vocabulary,
        kind: kind(&merged.all),
        place: None,
        draft: Draft {
            lines: vec![scope.from],
            ..Draft::default()
        },
        theirs: Vec::new(),
        rules: Vec::new(),
        deletes: None,
        is_two_way: false,
    };
    reader.ends();
    reader.actions();
    reader.time();
    reader.deletions();
    reader.filters();
    reader.rsync();
    reader.others();
    reader.finish()
}

fn kind(all: &Table) -> Kind {
    match all.get("action") {
        Some(Value::Builtin(name)) if name == "default.rsync.action" => Kind::Rsync,
        Some(Value::Builtin(name)) if name == "default.rsyncssh.action" => Kind::RsyncSsh,
        Some(Value::Builtin(name)) if name == "default.direct.action" => Kind::Direct,
        _ => Kind::Own,
    }
}

/// A sync while it is looked at.
struct Reader<'a> {
    merged: &'a Merged,
    scope: &'a Scope<'a>,
    vocabulary: &'a Vocabulary,
    kind: Kind,
    place: Option<Place>,
    draft: Draft,
    theirs: Vec<(String, Setting)>,
    rules: Vec<(Rule, String)>,
    deletes: Option<Deletes>,
    is_two_way: bool,
}

impl Reader<'_> {
    fn note(&mut self, key: &str, value: &Value, outcome: Outcome, to: Option<String>, text: &str) {
        let top = key.split('.').next().unwrap_or(key);
        let is_said = self.merged.said.named.contains_key(top);
        let line = is_said.then(|| self.scope.line(key, value)).flatten();
        self.draft.findings.push(Finding {
            line: line.or((self.scope.from > 0).then_some(self.scope.from)),
            key: key.escape_debug().to_string(),
            value: value.to_string(),
            outcome,
            to,
            text: text.to_owned(),
        });
    }

    /// Notes that a key keeps the mirror from being active.
    fn stop(&mut self, key: &str, value: &Value, text: &str) {
        self.note(key, value, Outcome::Stops, None, text);
        self.draft
            .stops
            .extend(self.draft.findings.last().map(Finding::reason));
    }

    fn wrong(&mut self, key: &str, value: &Value) {
        self.stop(key, value, "lsyncd does not take such a value, either");
    }

    /// Sets a key of the mirror, and says as what.
    fn set(&mut self, key: &str, setting: Setting) -> String {
        let shown = entry(key, &setting);
        self.draft.entries.retain(|(other, _)| other != key);
        self.draft.entries.push((key.to_owned(), setting));
        shown
    }

    fn get(&self, key: &str) -> Option<Value> {
        self.merged.all.get(key).cloned()
    }

    /// Source and target.
    fn ends(&mut self) {
        for key in ["source", "target", "host", "targetdir"] {
            if let Some(Value::Text(text)) = self.get(key)
                && text.chars().any(char::is_control)
            {
                return self.stop(key, &Value::Text(text), "it has a control character");
            }
        }
        match self.get("source") {
            Some(value @ Value::Text(_)) => {
                let Value::Text(path) = &value else { return };
                let source = trimmed(path);
                if source.starts_with('/') {
                    let to = format!("source = {source:?}");
                    self.note("source", &value, Outcome::Carried, Some(to), "");
                } else {
                    self.stop("source", &value, "it is relative to wherever lsyncd was started");
                }
                self.draft.source = Some(source);
            }
            Some(value) => self.wrong("source", &value),
            None => self
                .draft
                .stops
                .push("it has no source, and lsyncd refuses it".to_owned()),
        }
        match (self.get("host"), self.get("targetdir")) {
            (Some(Value::Text(host)), Some(Value::Text(directory))) if self.kind == Kind::RsyncSsh => {
                self.place = Some(Place::there(&host, &directory));
                self.note(
                    "host",
                    &Value::Text(host),
                    Outcome::Carried,
                    None,
                    "the HOST of the target",
                );
                self.note("targetdir", &Value::Text(directory), Outcome::Carried, None, "");
            }
            _ => self.target(),
        }
    }

    fn target(&mut self) {
        match self.get("target") {
            Some(value @ Value::Text(_)) => {
                let Value::Text(text) = &value else { return };
                match Place::parse(text) {
                    Ok(place) => {
                        self.place = Some(place);
                        self.note("target", &value, Outcome::Carried, None, "");
                    }
                    Err(why) => self.stop("target", &value, &why),
                }
            }
            Some(value) => self.wrong("target", &value),
            None => {
                let needed = if self.kind == Kind::RsyncSsh {
                    "host and targetdir"
                } else {
                    "target"
                };
                self.draft.stops.push(format!("it has no {needed}"));
            }
        }
    }

    /// Functions and commands, of which none is run.
    fn actions(&mut self) {
        if self.kind == Kind::Own {
            self.draft.stops.push(OWN_ACTIONS.to_owned());
        }
        for key in [
            "action",
            "onAttrib",
            "onCreate",
            "onDelete",
            "onFull",
            "onModify",
            "onMove",
            "onStartup",
            "prepare",
        ] {
            let Some(value) = self.get(key) else { continue };
            let fate = fate(&SYNC, key);
            match (&value, fate) {
                (Value::Builtin(_) | Value::Bool(_), _) => {}
                (_, Some(Fate::Stops(text))) if key == "prepare" => self.stop(key, &value, text),
                (_, Some(Fate::Stops(_) | Fate::Dropped(_))) if self.kind == Kind::Own => {
                    self.note(key, &value, Outcome::Stops, None, ACTION);
                }
                (_, Some(Fate::Stops(_))) => {
                    let text = "lsyncd does not call it where a default does the work, either";
                    self.note(key, &value, Outcome::Dropped, None, text);
                }
                (_, Some(Fate::Dropped(text))) => self.note(key, &value, Outcome::Dropped, None, text),
                _ => {}
            }
        }
    }

    /// `delay` and `maxDelays`.
    fn time(&mut self) {
        let most = self.get("maxDelays");
        // 1000 is lsyncd's own, and ours.
        let most = most.filter(|value| *value != Value::Number(1000.0));
        let is_at_once = matches!(most, Some(Value::Number(most)) if most < 1.0);
        match self.get("delay") {
            Some(value @ Value::Number(_)) => {
                let Value::Number(seconds) = value else { return };
                if seconds < 0.0 {
                    return self.wrong("delay", &value);
                }
                if seconds == 0.0 || is_at_once {
                    self.note(
                        "delay",
                        &value,
                        Outcome::Carried,
                        None,
                        "changes leave at once, as without a delay",
                    );
                } else {
                    let to = self.set("delay", Setting::Text(span(seconds)));
                    let is_said = self.merged.said.get("delay").is_some();
                    let text = if is_said { "" } else { UNSAID };
                    self.note("delay", &value, Outcome::Carried, Some(to), text);
                }
            }
            Some(value) => self.wrong("delay", &value),
            None => {}
        }
        let has_delay = self.draft.entries.iter().any(|(key, _)| key == "delay");
        match most {
            Some(value @ Value::Number(number)) if is_at_once || !has_delay => {
                let text = "without a delay there is nothing to gather";
                let text = if number < 1.0 {
                    "changes leave at once"
                } else {
                    text
                };
                self.note("maxDelays", &value, Outcome::Carried, None, text);
            }
            Some(value @ Value::Number(_)) => {
                let to = self.set("batch-max", Setting::Text(value.word().unwrap_or_default()));
                self.note("maxDelays", &value, Outcome::Carried, Some(to), "");
            }
            Some(value) => self.wrong("maxDelays", &value),
            None => {}
        }
    }

    /// `delete` and `init`.
    fn deletions(&mut self) {
        let (at_start, later) = match self.get("delete") {
            None => return,
            Some(Value::Bool(is)) => (is, is),
            Some(Value::Text(when)) if when == "startup" => (true, false),
            Some(Value::Text(when)) if when == "running" => (false, true),
            Some(value) => return self.wrong("delete", &value),
        };
        self.deletes = Some(Deletes { at_start, later });
        let Some(value) = self.get("init") else { return };
        match value {
            Value::Bool(false) => {
                // What only the target has at the start is left by that alone.
                self.deletes = Some(Deletes {
                    at_start: later,
                    later,
                });
                let to = self.set("initial", Setting::Text("skip".to_owned()));
                let text = "only at the first start: what changed while it did not run is sent";
                self.note("init", &value, Outcome::Carried, Some(to), text);
            }
            Value::Function(_) => {
                let text = "it is not run; at each start both sides are compared and what differs is sent";
                self.note("init", &value, Outcome::Replaced, None, text);
            }
            _ => {}
        }
    }

    /// All keys that no other part looks at.
    fn others(&mut self) {
        let said: Vec<(String, Value)> = self
            .merged
            .said
            .named
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in said {
            match (fate(&SYNC, &key), &value) {
                (None, Value::Builtin(_)) => {}
                (None, Value::Table(table)) if key == "xargs" => self.shell(&key, table),
                (None, _) => self.note(&key, &value, Outcome::Dropped, None, UNKNOWN),
                (_, Value::Table(table)) if key == "ssh" => self.shell(&key, table),
                (_, Value::Table(table)) if key == "crontab" => self.audit(table, &value),
                (Some(Fate::Stops(text)), _) if key == "subdirs" && !value.holds() => {
                    self.stop(&key, &value, text)
                }
                (Some(Fate::Replaced(text)), _) if key != "init" => {
                    self.note(&key, &value, Outcome::Replaced, None, text);
                }
                (
                    Some(Fate::Dropped(text)),
                    Value::Function(_) | Value::Table(_) | Value::Number(_) | Value::Text(_),
                ) if key != "onMove" => {
                    self.note(&key, &value, Outcome::Dropped, None, text);
                }
                _ => {}
            }
        }
    }

    fn shell(&mut self, name: &str, table: &Table) {
        for (key, value) in &table.named {
            let key = format!("{name}.{key}");
            match fate(&SSH, &key) {
                Some(Fate::Replaced(text)) => self.note(&key, value, Outcome::Replaced, None, text),
                _ => self.note(&key, value, Outcome::Dropped, None, UNKNOWN),
            }
        }
    }

    fn audit(&mut self, table: &Table, value: &Value) {
        let lines: Vec<String> = table.items().filter_map(Value::word).collect();
        match cron::interval(&lines) {
            Some(interval) => {
                let to = self.set("audit-interval", Setting::Text(interval.to_owned()));
                let text = "the source is looked at that often, slowly; the target is compared at each start and by `driftless verify`";
                self.note("crontab", value, Outcome::Carried, Some(to), text);
            }
            None => self.wrong("crontab", value),
        }
    }

    fn finish(mut self) -> Sync {
        if self.is_two_way && !matches!(self.place, Some(Place::Here(_))) {
            self.draft.stops.push(TWO_WAYS.to_owned());
        }
        if let Some(Deletes { at_start, later }) = self.deletes {
            let when = match (at_start, later) {
                (true, true) => "always",
                (true, false) => "startup",
                (false, true) => "running",
                (false, false) => "never",
            };
            let to = self.set("delete", Setting::Text(when.to_owned()));
            let value = self.get("delete").unwrap_or(Value::Bool(true));
            let is_said = self.merged.said.get("delete").is_some();
            let text = if is_said { "" } else { UNSAID };
            self.note("delete", &value, Outcome::Carried, Some(to), text);
        }
        for (key, setting) in rules::in_order(&self.rules) {
            self.set(key, setting);
        }
        let name = match self.merged.said.get("name") {
            Some(Value::Text(name)) => Some(name.clone()),
            _ => None,
        };
        if let Some(name) = &name {
            self.note(
                "name",
                &Value::Text(name.clone()),
                Outcome::Carried,
                Some("name".to_owned()),
                "",
            );
        }
        self.draft.entries.sort_by_key(|(key, _)| match key.as_str() {
            "delete" => 0,
            "delay" => 1,
            "batch-max" => 2,
            _ => 3,
        });
        self.draft.stops.dedup();
        Sync {
            draft: self.draft,
            place: self.place,
            name,
            theirs: self.theirs,
        }
    }
}

/// A number of seconds as a time span.
fn span(seconds: f64) -> String {
    if seconds.fract() == 0.0 {
        format!("{seconds}s")
    } else {
        format!("{}ms", (seconds * 1000.0).ceil())
    }
}
