//! Verdicts per second: 50 rules over 100,000 entries, as a walk asks for them.
//!
//! `cargo bench --bench filter`. Each figure is the best of five passes on one core.

#![allow(missing_docs, reason = "a benchmark has no users")]

use driftless::engine::filter::{DirRules, Filter, FilterBuilder, NoRuleFiles, Role};
use driftless_protocol::{Kind, Name};
use std::hint::black_box;
use std::time::Instant;

const DIRECTORIES: usize = 1_000;
const FILES: usize = 99;

fn builder(rules: &[String]) -> Filter {
    let mut builder = FilterBuilder::new(b"/srv/www");
    for rule in rules {
        builder
            .filter(rule.as_bytes(), &mut NoRuleFiles)
            .expect("the rules are well-formed");
    }
    builder.build().expect("the rules are within the limits")
}

/// Fifty rules none of which matches an entry, so that each is looked at for each entry: the worst case.
fn rule_sets() -> [(&'static str, Vec<String>); 4] {
    let numbered = |form: fn(usize) -> String| (0..50).map(form).collect::<Vec<_>>();
    [
        ("suffixes (*.ext)", numbered(|n| format!("- *.ext{n}"))),
        ("anchored paths (/a/b)", numbered(|n| format!("- /cache{n}/tmp"))),
        ("wildcards in names", numbered(|n| format!("- tmp*{n}[a-f]?"))),
        (
            "paths with ** (a/**/b)",
            numbered(|n| format!("- cache{n}/**/*.tmp{n}")),
        ),
    ]
}

/// The directories of a tree and the names of their entries.
fn tree(filter: &Filter) -> (Vec<DirRules>, Vec<Name>) {
    let root = filter
        .root(Role::Source, &mut NoRuleFiles)
        .expect("no rule files");
    let name = |text: String| Name::new(text.into_bytes()).expect("a good name");
    let directories = (0..DIRECTORIES)
        .map(|number| {
            let above = root.enter(&name(format!("section-{}", number % 40)), &mut NoRuleFiles);
            let above = above.expect("no rule files");
            above
                .enter(&name(format!("project-{number:04}")), &mut NoRuleFiles)
                .expect("no rule files")
        })
        .collect();
    let files = (0..FILES)
        .map(|number| name(format!("document-{number:03}.html")))
        .collect();
    (directories, files)
}

fn main() {
    for (what, rules) in rule_sets() {
        let filter = builder(&rules);
        let (directories, files) = tree(&filter);
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            for directory in &directories {
                for file in &files {
                    let verdict = directory.verdict(file, Kind::File);
                    assert!(black_box(verdict.transfer));
                }
                black_box(directory.verdict(&files[0], Kind::Directory));
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        let verdicts = (DIRECTORIES * (FILES + 1)) as f64;
        println!(
            "{what:<24} {:>6.2} million verdicts/s, {:>5.1} ns per rule",
            verdicts / best / 1e6,
            best / verdicts / 50.0 * 1e9
        );
    }
}
