//! The effective configuration, for people (as TOML that could be used) and for programs (as JSON).

use super::plan::{Configuration, ENDPOINT_KEYS, EndpointOptions, MirrorOptions, ProcessOptions};
use super::read::{Entry, Place, Value};
use super::schema;
use crate::cli::hooks::HookOptions;
use crate::cli::logging::LoggingArgs;
use crate::cli::writing::OfferArgs;
use serde_json::{Map, json};

/// One table, each value with where it comes from; none is the default.
struct Shown<'a> {
    heading: &'a str,
    place: Option<&'a Place>,
    values: Vec<(String, Value, Option<Place>)>,
}

fn tables(configuration: &Configuration) -> Vec<Shown<'_>> {
    let mut settings_defaults = schema::defaults::<ProcessOptions>();
    settings_defaults.extend(schema::defaults::<EndpointOptions>());
    settings_defaults.extend(schema::defaults::<LoggingArgs>());
    let process = schema::keys::<ProcessOptions>();
    let mut mirror_defaults = schema::defaults::<MirrorOptions>();
    mirror_defaults.retain(|(key, _)| !process.iter().any(|(other, _)| other == key));
    let module_defaults = schema::defaults::<OfferArgs>();
    // Said there, it would be said for mirrors, too, which have no default of their own.
    let of_mirrors = schema::keys::<MirrorOptions>();
    settings_defaults.retain(|(key, _)| {
        let is_known = of_mirrors.iter().any(|(other, _)| other == key);
        !is_known
            || mirror_defaults.iter().any(|(other, _)| other == key)
            || process.iter().any(|(other, _)| other == key)
    });
    let settings = Shown {
        heading: "[settings]",
        place: None,
        values: with_defaults(&configuration.settings, &settings_defaults),
    };
    let mut tree_defaults = mirror_defaults.clone();
    tree_defaults.retain(|(key, _)| {
        !ENDPOINT_KEYS.contains(&key.as_str()) && !module_defaults.iter().any(|(other, _)| other == key)
    });
    let mirrors = configuration.mirrors.iter().map(|mirror| {
        let (heading, defaults) = match mirror.is_offered {
            true => ("[[tree]]", &tree_defaults),
            false => ("[[mirror]]", &mirror_defaults),
        };
        Shown {
            heading,
            place: Some(&mirror.place),
            values: with_defaults(&mirror.entries, defaults),
        }
    });
    let modules = configuration.modules.iter().map(|module| Shown {
        heading: "[[module]]",
        place: Some(&module.place),
        values: with_defaults(&module.entries, &module_defaults),
    });
    let hook_defaults = schema::defaults::<HookOptions>();
    let hooks = configuration.hooks.iter().map(|hook| Shown {
        heading: "[[hook]]",
        place: Some(&hook.place),
        values: with_defaults(&hook.entries, &hook_defaults),
    });
    std::iter::once(settings)
        .chain(mirrors)
        .chain(modules)
        .chain(hooks)
        .collect()
}

fn with_defaults(entries: &[Entry], defaults: &[(String, Value)]) -> Vec<(String, Value, Option<Place>)> {
    let said = entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.clone(), Some(entry.place.clone())));
    let unsaid = defaults
        .iter()
        .filter(|(key, _)| !entries.iter().any(|entry| entry.key == *key));
    said.chain(unsaid.map(|(key, value)| (key.clone(), value.clone(), None)))
        .collect()
}

/// As TOML with comments.
pub(super) fn text(configuration: &Configuration) -> String {
    let mut out = String::new();
    for table in tables(configuration) {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(table.heading);
        if let Some(place) = table.place {
            out.push_str(&format!("  # {}{place}", origin(place)));
        }
        out.push('\n');
        let lines: Vec<_> = table
            .values
            .iter()
            .map(|(key, value, place)| (format!("{key} = {}", literal(value)), place))
            .collect();
        let width = lines
            .iter()
            .map(|(line, _)| line.chars().count())
            .max()
            .unwrap_or(0)
            .min(60);
        for (line, place) in lines {
            let comment = match place {
                Some(place) => format!("{}{place}", origin(place)),
                None => "default".to_owned(),
            };
            out.push_str(&format!("{line:width$}  # {comment}\n"));
        }
    }
    out
}

fn origin(place: &Place) -> &'static str {
    if place.is_drop_in { "drop-in " } else { "" }
}

fn literal(value: &Value) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    match value {
        Value::Bool(is) => is.to_string(),
        Value::Number(number) => number.clone(),
        Value::Text(text) => quoted(text),
        Value::List(list) => format!(
            "[{}]",
            list.iter()
                .map(|text| quoted(text))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// As JSON: for each table its values, and for each value its origin.
pub(super) fn json(configuration: &Configuration) -> serde_json::Value {
    let tables = tables(configuration);
    let of = |heading: &str| -> Vec<serde_json::Value> {
        let wanted = tables.iter().filter(|table| table.heading == heading);
        wanted.map(|table| table_json(table)).collect()
    };
    json!({
        "settings": of("[settings]").pop(),
        "mirrors": of("[[mirror]]"),
        "trees": of("[[tree]]"),
        "modules": of("[[module]]"),
        "hooks": of("[[hook]]"),
    })
}

fn table_json(table: &Shown<'_>) -> serde_json::Value {
    let values = table.values.iter().map(|(key, value, place)| {
        let value = match value {
            Value::Bool(is) => json!(is),
            Value::Number(number) => number
                .parse::<i64>()
                .map_or_else(|_| json!(number), |number| json!(number)),
            Value::Text(text) => json!(text),
            Value::List(list) => json!(list),
        };
        let origin = match place {
            Some(place) => json!({"kind": if place.is_drop_in { "drop-in" } else { "file" },
                "file": place.file.as_ref(), "line": place.line}),
            None => json!({"kind": "default"}),
        };
        (key.clone(), json!({"value": value, "origin": origin}))
    });
    serde_json::Value::Object(values.collect::<Map<_, _>>())
}
