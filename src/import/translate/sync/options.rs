//! The table `rsync` of a sync, and the words of its `_extra`.

use super::{Deletes, Outcome, Reader, Setting};
use crate::import::place::Place;
use crate::import::rsync::{Effect, Given, Otherwise, Rule, option, words};
use crate::import::value::{Table, Value};
use crate::import::write::entry;

const AS_HERE: &str = "off, as it is here";
const RELATIVE: &str = "it is relative to wherever lsyncd was started";

impl Reader<'_> {
    /// All options: those that the configuration says itself, and the words of `_extra` behind them.
    pub(super) fn rsync(&mut self) {
        let said = match self.merged.said.get("rsync") {
            Some(Value::Table(table)) => table.clone(),
            Some(value) => {
                let value = value.clone();
                return self.wrong("rsync", &value);
            }
            None => Table::default(),
        };
        let of = |name: &str| said.get(name).is_some_and(Value::holds);
        self.is_two_way = of("update") && of("temp_dir");
        for (name, value) in &said.named {
            let key = format!("rsync.{name}");
            match (name.as_str(), value) {
                ("_extra", _) => {}
                (name, value) => match option(name).filter(|option| option.is_key) {
                    Some(option) => self.option(&key, option.effect, name, value, value),
                    None => self.note(&key, value, Outcome::Dropped, None, super::UNKNOWN),
                },
            }
        }
        let extra = said.get("_extra").cloned().map(|value| ("rsync._extra", value));
        let old = ["rsyncOps", "rsyncOpts"].map(|key| self.get(key).map(|value| (key, value)));
        for (key, value) in extra.into_iter().chain(old.into_iter().flatten()) {
            match &value {
                Value::Table(words) => self.words(key, words),
                _ => self.stop(key, &value, "it is no table of words"),
            }
        }
    }

    fn words(&mut self, key: &str, extra: &Table) {
        for Given { name, value, shown } in words(extra) {
            let shown = Value::Text(shown);
            match option(&name) {
                Some(option) => self.option(key, option.effect, &name, &value, &shown),
                None => self.stop(key, &shown, "this option of rsync is not known here"),
            }
        }
    }

    fn option(&mut self, key: &str, effect: Effect, name: &str, value: &Value, shown: &Value) {
        if !value.holds() {
            return self.switched_off(key, effect, name, shown);
        }
        match effect {
            Effect::Always(_) | Effect::Unless(_) => {
                self.note(key, shown, Outcome::Carried, Some("always".to_owned()), "")
            }
            Effect::Perhaps(ours, otherwise) if !self.vocabulary.mirror.contains(ours) => {
                self.otherwise(key, otherwise, shown);
            }
            Effect::Ours(ours) | Effect::Perhaps(ours, _) => self.ours(key, ours, value, shown),
            Effect::Theirs(theirs, otherwise) => self.theirs(key, theirs, otherwise, value, shown),
            Effect::Rule(rule) => self.rule(key, rule, value, shown),
            Effect::Replaced(text) => self.note(key, shown, Outcome::Replaced, None, text),
            Effect::Dropped(text) => self.note(key, shown, Outcome::Dropped, None, text),
            Effect::Differs(text) => self.note(key, shown, Outcome::Differs, None, text),
            Effect::Stops(text) => self.stop(key, shown, text),
        }
    }

    fn switched_off(&mut self, key: &str, effect: Effect, name: &str, shown: &Value) {
        let off = match (effect, name) {
            (_, "compress") => Some(("compress", Setting::Text("off".to_owned()))),
            (Effect::Unless(ours), _) => Some((ours, Setting::Switch(true))),
            (Effect::Always(text), _) if !matches!(name, "archive" | "recursive") => {
                return self.note(key, shown, Outcome::Differs, None, text);
            }
            _ => None,
        };
        match off {
            Some((ours, setting)) => {
                let to = self.set(ours, setting);
                self.note(key, shown, Outcome::Carried, Some(to), "");
            }
            None => self.note(key, shown, Outcome::Dropped, None, AS_HERE),
        }
    }

    fn ours(&mut self, key: &str, ours: &str, value: &Value, shown: &Value) {
        let setting = match (ours, setting(value)) {
            ("compress", Some(Setting::Switch(_))) => Setting::Text("auto".to_owned()),
            (_, Some(setting)) => setting,
            (_, None) => return self.wrong(key, shown),
        };
        let to = self.set(ours, setting);
        self.note(key, shown, Outcome::Carried, Some(to), "");
    }

    /// For the end that writes: this one if the target is a directory here.
    fn theirs(&mut self, key: &str, theirs: &str, otherwise: Otherwise, value: &Value, shown: &Value) {
        let is_here = matches!(self.place, Some(Place::Here(_)));
        let known = if is_here {
            &self.vocabulary.mirror
        } else {
            &self.vocabulary.module
        };
        if !known.contains(theirs) {
            return self.otherwise(key, otherwise, shown);
        }
        let Some(setting) = setting(value) else {
            return self.wrong(key, shown);
        };
        if is_here {
            let to = self.set(theirs, setting);
            self.note(key, shown, Outcome::Carried, Some(to), "");
        } else {
            let to = entry(theirs, &setting);
            self.theirs.push((theirs.to_owned(), setting));
            let text = "in the module on the receiver, see `pair`";
            self.note(key, shown, Outcome::Carried, Some(to), text);
        }
    }

    fn otherwise(&mut self, key: &str, otherwise: Otherwise, shown: &Value) {
        match otherwise {
            Otherwise::Replaced(text) => self.note(key, shown, Outcome::Replaced, None, text),
            Otherwise::Stops(text) => self.stop(key, shown, text),
        }
    }

    fn rule(&mut self, key: &str, rule: Rule, value: &Value, shown: &Value) {
        const EVERYTHING: Deletes = Deletes {
            at_start: true,
            later: true,
        };
        match (rule, value) {
            (Rule::Delete, _) => {
                self.deletes = Some(EVERYTHING);
                self.note(key, shown, Outcome::Carried, Some("delete".to_owned()), "");
            }
            (Rule::DeleteExcluded, _) => {
                self.deletes = Some(EVERYTHING);
                let to = self.set("delete-excluded", Setting::Switch(true));
                self.note(key, shown, Outcome::Carried, Some(to), "");
            }
            (Rule::ExcludeFrom | Rule::IncludeFrom, Value::Text(path)) if !path.starts_with('/') => {
                self.stop(key, shown, RELATIVE);
            }
            (rule, Value::Text(text)) => {
                let to = super::rules::rule_key(rule).to_owned();
                self.note(key, shown, Outcome::Carried, Some(to), "");
                self.rules.push((rule, text.clone()));
            }
            _ => self.wrong(key, shown),
        }
    }
}

/// A value of Lua as one of ours.
fn setting(value: &Value) -> Option<Setting> {
    match value {
        Value::Bool(is) => Some(Setting::Switch(*is)),
        Value::Number(_) | Value::Text(_) => value.word().map(Setting::Text),
        _ => None,
    }
}
