//! How lsyncd makes one configuration of many: a table inherits from the tables that stand in it without a key.
//!
//! `sync{ default.rsync, mine, delay = 5 }` has its own keys, then what `default.rsync` has and it lacks, then what
//! `mine` has, and so on below. Tables under one key are merged in the same way, unless they say `_merge = false`; one
//! that says `_verbatim` is a list of numbers, and not of layers. What `default` itself has comes last.

use super::value::{Table, Value};

/// The mark of lsyncd's own layers, of the prelude.
const LAYER: &str = "_layer";
/// What every sync inherits from `default`.
const FROM_DEFAULT: [(&str, &str); 4] = [
    ("action", "default.action"),
    ("init", "default.init"),
    ("prepare", "default.prepare"),
    ("collect", "default.collect"),
];

/// A sync as lsyncd would use it, and what of it the configuration itself says.
pub(super) struct Merged {
    pub(super) all: Table,
    pub(super) said: Table,
}

/// Merges the layers of a call of `sync`.
pub(super) fn merge(call: &Table) -> Merged {
    let (mut all, mut said) = (Table::default(), Table::default());
    inherit(&mut all, call, false, &|_| true);
    inherit(&mut said, call, false, &|layer| !layer.named.contains_key(LAYER));
    for (key, builtin) in FROM_DEFAULT {
        all.named
            .entry(key.to_owned())
            .or_insert_with(|| Value::Builtin(builtin.to_owned()));
    }
    Merged { all, said }
}

fn inherit(into: &mut Table, from: &Table, verbatim: bool, takes: &dyn Fn(&Table) -> bool) {
    let only = match from.named.get("_merge") {
        Some(Value::Table(only)) => Some(only),
        _ => None,
    };
    let verbatim = verbatim || from.named.get("_verbatim") == Some(&Value::Bool(true));
    for (key, value) in &from.named {
        let is_listed = only.is_none_or(|only| only.named.get(key) == Some(&Value::Bool(true)));
        if is_listed && key != "_merge" && key != "_verbatim" {
            let inner = key == "exitcodes";
            match (into.named.get_mut(key), value) {
                (None, Value::Table(table)) => {
                    let mut copy = Table::default();
                    inherit(&mut copy, table, inner, takes);
                    into.named.insert(key.clone(), Value::Table(copy));
                }
                (Some(Value::Table(there)), Value::Table(table)) => {
                    if table.named.get("_merge") != Some(&Value::Bool(false)) {
                        inherit(there, table, inner, takes);
                    }
                }
                (None, value) => {
                    into.named.insert(key.clone(), value.clone());
                }
                (Some(_), _) => {}
            }
        }
    }
    if verbatim {
        for (index, value) in &from.indexed {
            into.indexed.entry(*index).or_insert_with(|| value.clone());
        }
        return;
    }
    for item in from.items() {
        match item {
            Value::Table(layer) if takes(layer) => inherit(into, layer, false, takes),
            Value::Table(_) => {}
            other => {
                let next = into.items().count() as i64 + 1;
                into.indexed.insert(next, other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(named: &[(&str, Value)], items: &[Value]) -> Table {
        Table {
            named: named
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
            indexed: (1..).zip(items.iter().cloned()).collect(),
        }
    }

    #[test]
    fn own_keys_go_before_those_of_layers_and_tables_are_merged() {
        let text = |text: &str| Value::Text(text.to_owned());
        let list = |words: &[&str]| {
            Value::Table(table(
                &[],
                &words.iter().map(|word| text(word)).collect::<Vec<_>>(),
            ))
        };
        let codes = Value::Table(table(
            &[("_verbatim", Value::Bool(true)), ("_merge", Value::Bool(false))],
            &[text("ok")],
        ));
        let rsync = |pairs: &[(&str, Value)]| Value::Table(table(pairs, &[]));
        let default = table(
            &[
                ("_layer", text("default.rsync")),
                ("delay", Value::Number(15.0)),
                ("delete", Value::Bool(true)),
                ("exitcodes", codes.clone()),
                (
                    "rsync",
                    rsync(&[("links", Value::Bool(true)), ("binary", text("rsync"))]),
                ),
            ],
            &[],
        );
        let mine = table(
            &[
                ("delay", Value::Number(3.0)),
                ("rsync", rsync(&[("links", Value::Bool(false))])),
            ],
            &[Value::Table(default)],
        );
        let call = table(
            &[
                ("source", text("/s")),
                ("delay", Value::Number(1.0)),
                ("exclude", list(&["a", "b"])),
            ],
            &[Value::Table(mine)],
        );
        let Merged { all, said } = merge(&call);
        assert_eq!(all.get("delay"), Some(&Value::Number(1.0)));
        assert_eq!(all.get("delete"), Some(&Value::Bool(true)));
        assert_eq!(all.get("exclude"), Some(&list(&["a", "b"])));
        assert_eq!(
            all.get("rsync"),
            Some(&rsync(&[
                ("links", Value::Bool(false)),
                ("binary", text("rsync"))
            ]))
        );
        assert_eq!(
            all.get("action"),
            Some(&Value::Builtin("default.action".to_owned()))
        );
        let Some(Value::Table(found)) = all.get("exitcodes") else {
            panic!("{all:?}")
        };
        assert_eq!(found.indexed.len(), 1);
        assert_eq!(said.get("delete"), None);
        assert_eq!(said.get("rsync"), Some(&rsync(&[("links", Value::Bool(false))])));
    }
}
