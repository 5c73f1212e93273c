//! Configurations of lsyncd, and what becomes of them, compared with what is in `tests/import`.
//!
//! With DRIFTLESS_WRITE_EXPECTED set, the files are written instead.

use super::sandbox::Sandbox;
use super::translate::{Draft, Import, Outcome, Setting, Vocabulary, translate};
use super::value::{Evaluation, Failure};
use super::{Source, report, table, write};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/import")
        .join(name)
}

fn source(name: &str) -> Source {
    Source {
        path: name.to_owned(),
        text: std::fs::read(path(name)).unwrap(),
    }
}

fn evaluated(source: &Source) -> Result<Evaluation, Failure> {
    let line = Arc::new(AtomicU32::new(0));
    Sandbox::new(&source.path, line)?.run(source)
}

fn imported(text: &str, vocabulary: &Vocabulary) -> Import {
    let source = Source {
        path: "x.lua".to_owned(),
        text: text.into(),
    };
    translate(&evaluated(&source).unwrap(), &source, vocabulary).unwrap()
}

/// A version of driftless with all keys that there may be one day.
fn rich() -> Vocabulary {
    let words = |words: &str| {
        words
            .split_whitespace()
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
    };
    Vocabulary {
        mirror: words("checksum update existing timeout backup suffix"),
        module: words("backup backup-dir"),
    }
}

#[track_caller]
fn is_as_expected(name: &str) {
    let source = source(&format!("{name}.lua"));
    let import = translate(&evaluated(&source).unwrap(), &source, &Vocabulary::default()).unwrap();
    for (kind, text) in [
        ("toml", write::toml(&import, &source).text),
        ("report", report::text(&import, &source)),
    ] {
        let file = path(&format!("{name}.{kind}"));
        if std::env::var_os("DRIFTLESS_WRITE_EXPECTED").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, expected, "{}", file.display());
    }
}

#[test]
fn every_key_becomes_something() {
    is_as_expected("every_key");
}

#[test]
fn a_single_file() {
    is_as_expected("single_file");
}

#[test]
fn two_ways_are_not_active() {
    is_as_expected("two_ways");
}

#[test]
fn a_loop_over_servers() {
    is_as_expected("servers");
}

#[test]
fn actions_of_its_own_are_named_and_not_run() {
    is_as_expected("own_actions");
}

#[test]
fn what_would_do_something_else_is_not_active() {
    is_as_expected("differing");
}

#[test]
fn the_style_of_old() {
    is_as_expected("old_style");
}

/// No key of the file with all keys is without an outcome, and none is unknown.
#[test]
fn every_key_of_lsyncd_is_known() {
    let names: BTreeSet<String> = table().into_iter().map(|(name, _)| name).collect();
    for name in LSYNCD.split_whitespace() {
        assert!(names.contains(name), "{name} is not known");
    }
    let source = source("every_key.lua");
    let import = translate(&evaluated(&source).unwrap(), &source, &Vocabulary::default()).unwrap();
    let findings = import
        .mirrors
        .iter()
        .flat_map(|mirror| &mirror.findings)
        .chain(&import.findings);
    let found: BTreeSet<&str> = findings
        .inspect(|finding| assert!(!finding.text.contains("lsyncd does not"), "{finding:?}"))
        .map(|finding| finding.key.as_str())
        .collect();
    // Those that keep a mirror from being active are in the other files, as are those of lsyncd 2.0 and 2.1.
    let elsewhere = "action checkgauge onAttrib onCreate onDelete onFull onModify onMove onStartup prepare subdirs rsync ssh \
                     rsyncOps rsyncOpts settings.delay xargs.binary xargs.delimiter xargs._extra rsync.backup rsync.backup_dir \
                     rsync.copy_dirlinks rsync.copy_links rsync.dry_run rsync.existing rsync.keep_dirlinks rsync.suffix \
                     rsync.update";
    let elsewhere: BTreeSet<&str> = elsewhere.split_whitespace().collect();
    let missing: Vec<&String> = names
        .iter()
        .filter(|name| !found.contains(name.as_str()) && !elsewhere.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in every_key.lua: {missing:?}");
}

/// All that lsyncd 2.0 to 2.3 take in a configuration.
const LSYNCD: &str = "\
settings.logfile settings.logfacility settings.logident settings.pidfile settings.nodaemon settings.statusFile \
settings.statusInterval settings.insist settings.inotifyMode settings.maxProcesses settings.maxDelays settings.onepass \
settings.delay source target host targetdir name delay maxDelays maxProcesses minDelay init delete exclude excludeFrom filter \
filterFrom exitcodes rsyncExitCodes sshExitCodes prepare action collect checkgauge onAttrib onCreate onModify onDelete onMove \
onStartup onFull crontab tunnel batchSizeLimit monitor subdirs rsyncOps rsyncOpts ssh.binary ssh.identityFile ssh.options \
ssh.port ssh._extra xargs.binary xargs.delimiter xargs._extra rsync.acls rsync.append rsync.append_verify rsync.archive \
rsync.backup rsync.backup_dir rsync.binary rsync.bwlimit rsync.checksum rsync.chmod rsync.chown rsync.compress \
rsync.copy_dirlinks rsync.copy_links rsync.cvs_exclude rsync.dry_run rsync.executability rsync.existing rsync.group \
rsync.groupmap rsync.hard_links rsync.ignore_times rsync.inplace rsync.ipv4 rsync.ipv6 rsync.keep_dirlinks rsync.links \
rsync.omit_dir_times rsync.omit_link_times rsync.one_file_system rsync.owner rsync.password_file rsync.perms \
rsync.protect_args rsync.prune_empty_dirs rsync.quiet rsync.rsh rsync.rsync_path rsync.sparse rsync.suffix rsync.temp_dir \
rsync.timeout rsync.times rsync.update rsync.usermap rsync.verbose rsync.whole_file rsync.xattrs rsync._extra";

fn entry<'a>(mirror: &'a Draft, key: &str) -> Option<&'a Setting> {
    mirror
        .entries
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, setting)| setting)
}

#[test]
fn a_version_with_more_keys_carries_more() {
    let import = imported(
        "sync{ default.rsync, source = '/s', target = '/t', rsync = { chown = 'a:b', chmod = 'D755', links = false,\n\
         checksum = true, timeout = 60, backup = true, suffix = '.old', _extra = { '--usermap=*:x', '--numeric-ids' } } }\n\
         sync{ default.rsync, source = '/s', target = 'h:/t', rsync = { backup = true, backup_dir = 'old' } }\n\
         sync{ default.rsync, source = '/s', target = 'h:/u', rsync = { suffix = '.old' } }",
        &rich(),
    );
    let [here, there, without] = &import.mirrors[..] else {
        panic!("{import:#?}")
    };
    let text = |text: &str| Setting::Text(text.to_owned());
    for (key, setting) in [
        ("chown", text("a:b")),
        ("chmod", text("D755")),
        ("no-links", Setting::Switch(true)),
        ("checksum", Setting::Switch(true)),
        ("timeout", text("60")),
        ("backup", Setting::Switch(true)),
        ("suffix", text(".old")),
        ("usermap", text("*:x")),
        ("numeric-ids", Setting::Switch(true)),
    ] {
        assert_eq!(entry(here, key), Some(&setting), "{key}");
    }
    assert!(here.stops.is_empty() && there.stops.is_empty(), "{import:#?}");
    // The end that writes is elsewhere, so its module has the keys.
    assert_eq!(entry(there, "backup"), None);
    let module = &import.receivers[0].modules[0];
    assert_eq!(
        module.entries,
        [
            ("backup".to_owned(), Setting::Switch(true)),
            ("backup-dir".to_owned(), text("old"))
        ]
    );
    assert!(
        without.stops[0].contains("old versions were kept"),
        "{without:#?}"
    );
}

#[test]
fn settings_win_over_syncs_and_layers_over_defaults() {
    let import = imported(
        "settings{ maxDelays = 7 }\n\
         slow = { default.direct, delay = 60 }\n\
         sync{ slow, source = '/a', target = '/b', maxDelays = 2 }\n\
         sync{ default.direct, source = '/c', target = '/d' }",
        &Vocabulary::default(),
    );
    let text = |text: &str| Some(Setting::Text(text.to_owned()));
    let delays: Vec<_> = import
        .mirrors
        .iter()
        .map(|mirror| entry(mirror, "delay").cloned())
        .collect();
    assert_eq!(delays, [text("60s"), text("1s")]);
    assert!(
        import
            .mirrors
            .iter()
            .all(|mirror| entry(mirror, "batch-max").cloned() == text("7"))
    );
}

#[test]
fn when_is_deleted() {
    let when = |more: &str| {
        let text = format!("sync{{ default.rsync, source = '/s', target = '/t', {more} }}");
        let import = imported(&text, &Vocabulary::default());
        match entry(&import.mirrors[0], "delete") {
            Some(Setting::Text(when)) => when.clone(),
            other => panic!("{other:?}"),
        }
    };
    for (more, expected) in [
        ("", "always"),
        ("delete = true", "always"),
        ("delete = false", "never"),
        ("delete = 'startup'", "startup"),
        ("delete = 'running'", "running"),
        ("init = false", "always"),
        ("init = false, delete = 'running'", "always"),
        ("init = false, delete = 'startup'", "never"),
        ("init = false, delete = false", "never"),
        (
            "delete = false, rsync = { _extra = { '--delete-after' } }",
            "always",
        ),
    ] {
        assert_eq!(when(more), expected, "{more}");
    }
}

/// Whatever stands in a text cannot get out of a comment or a quote.
#[test]
fn texts_stay_where_they_are() {
    let import = imported(
        "sync{ default.rsync, source = '/s\\n[[mirror]]', target = '/t' }\n\
         sync{ default.rsync, source = '/s', target = '/t', exclude = 'a\\n\"\\127\\'\\'\\'[[mirror]]', rsync = { update = true, ['x\\n[y]'] = '\\27[31m' } }\n\
         sync{ default.rsync, source = '/\\xff', target = '/t' }",
        &Vocabulary::default(),
    );
    let source = Source {
        path: "a\nb".to_owned(),
        text: Vec::new(),
    };
    let written = write::toml(&import, &source).text;
    let parsed: toml::Table = written.parse().unwrap();
    assert_eq!(parsed.keys().collect::<Vec<_>>(), ["settings"], "{written}");
    let activated: String = written
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let parsed: toml::Table = activated.parse().unwrap();
    assert_eq!(
        parsed["mirror"][0]["exclude"][0].as_str(),
        Some("a\n\"\u{7f}'''[[mirror]]")
    );
    let report = report::text(&import, &source);
    assert!(
        report
            .lines()
            .skip(1)
            .all(|line| !line.chars().any(char::is_control)),
        "{report}"
    );
}

#[test]
fn what_goes_wrong_has_its_line() {
    let fails = |text: &str| {
        let source = Source {
            path: "x.lua".to_owned(),
            text: text.into(),
        };
        evaluated(&source).expect_err(text)
    };
    for (text, line, said) in [
        ("\nx = = 1", Some(2), "not Lua"),
        (
            "sync{\n}\nlocal y = nil\ny.z = 1",
            Some(4),
            "attempt to index a nil value",
        ),
        ("\nerror('enough')", Some(2), "enough"),
        ("\nerror({})", Some(2), ""),
        ("\n\nsync(3)", Some(3), "sync takes a table"),
        ("settings(3)", Some(1), "settings takes a table"),
        (
            "\nlocal f = io.open('/etc/passwd')",
            Some(2),
            "io.open reads, writes or runs",
        ),
        (
            "for line in io.popen('ls'):lines() do end",
            Some(1),
            "io.popen reads",
        ),
        ("\nos.execute('true')", Some(2), "os.execute reads"),
        ("\nos.remove('x')", Some(2), "os.remove reads"),
        ("\nrequire 'posix'", Some(2), "require takes more Lua"),
        ("\ndofile('/etc/x.lua')", Some(2), "dofile takes more Lua"),
        ("\nload('return 1')", Some(2), "load takes more Lua"),
        ("\nspawn(1, '/bin/true')", Some(2), "spawn runs a program"),
        (
            "\nfor d in pairs(readdir('/srv')) do end",
            Some(2),
            "readdir reads",
        ),
        (
            "\nlocal c = inlet.getConfig()",
            Some(2),
            "inlet.getConfig exists only while lsyncd runs",
        ),
        (
            "\ndefault.rsync.init({})",
            Some(2),
            "default.rsync.init exists only",
        ),
        (
            "\nlocal s = sync{}\ns:addExclude('x')",
            Some(3),
            "addExclude exists only",
        ),
        (
            "\ncoroutine.create(print)",
            Some(2),
            "coroutine.create is not there",
        ),
        ("\nstring.dump(print)", Some(2), "attempt to call a nil value"),
        ("\ndebug.sethook()", Some(2), "debug.sethook is not there"),
        (
            "\nlocal function f() return 1 + f() end\nf()",
            Some(2),
            "more memory than",
        ),
        (
            "\nlocal function f() return (('x'):gsub('.', f)) end\nf()",
            Some(2),
            "stack overflow",
        ),
        (
            "\nlocal t = {}\nt.t = t\nsync(t)",
            Some(4),
            "tables deep, or in itself",
        ),
        (
            "\nlocal x = string.rep('x', 1e9)",
            Some(2),
            "more memory than the 64 MiB",
        ),
        (
            "local t = {}\nfor i = 1, 1e9 do\nt[i] = { i }\nend",
            None,
            "more memory than the 64 MiB",
        ),
        (
            "local s = ('x'):rep(1e6)\nfor i = 1, 20 do\nsync{ a = { s, s } }\nend",
            Some(3),
            "of text",
        ),
        ("for i = 1, 1001 do sync{} end", Some(1), "more than 1000 times"),
        ("\x1bLuaS", None, "compiled Lua"),
    ] {
        let Failure {
            line: found,
            text: said_so,
        } = fails(text);
        assert!(said_so.contains(said), "{text:?}: {said_so}");
        if line.is_some() {
            assert_eq!(found, line, "{text:?}: {said_so}");
        }
    }
    let deep = fails(&format!("local x = {}1", "(".repeat(100_000)));
    assert!(deep.text.contains("overflow"), "{deep:?}");
    let key = fails("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIH\nabcdef\n");
    assert!(!key.text.contains("MC4") && !key.text.contains("abc"), "{key:?}");
}

/// What runs when Lua looks for something, or throws something away, is not run by what looks at tables here.
#[test]
fn tables_are_only_looked_at() {
    let import = imported(
        "local trap = { __index = function() error('ran') end, __pairs = function() error('ran') end,\n\
         __gc = function() error('ran') end, __len = function() error('ran') end }\n\
         local t = setmetatable({ default.direct, source = '/s', target = '/t' }, trap)\n\
         sync(t)\n\
         settings(setmetatable({ 'nodaemon' }, trap))",
        &Vocabulary::default(),
    );
    assert!(import.mirrors[0].stops.is_empty());
    assert_eq!(import.findings[0].outcome, Outcome::Dropped);
}

#[test]
fn surroundings_are_told() {
    let import = imported(
        "#!/usr/bin/lsyncd\nassert(debug.getinfo(1).source == '@x.lua' and debug.getinfo(1).currentline == 2)\n\
         assert(settings('nodaemon') == nil)\nsettings{ nodaemon = true }\nassert(settings('nodaemon'))\n\
         assert(os.getenv('DRIFTLESS_TEST_SURELY_UNSET') == nil and os.time() > 0 and now() > 0)\n\
         sync{ default.direct, source = '/s', target = '/t-' .. os.date('!%Y', 0) }",
        &Vocabulary::default(),
    );
    assert_eq!(import.mirrors[0].targets, ["/t-1970"]);
    let told: Vec<_> = import
        .findings
        .iter()
        .map(|finding| (finding.key.as_str(), finding.line))
        .collect();
    assert!(
        told.contains(&("os.getenv(\"DRIFTLESS_TEST_SURELY_UNSET\")", Some(6))),
        "{told:?}"
    );
    assert!(told.contains(&("os.date", Some(7))), "{told:?}");
}

#[test]
fn a_configuration_without_syncs_is_none() {
    let source = Source {
        path: "x.lua".to_owned(),
        text: b"settings{ nodaemon = true }".to_vec(),
    };
    let failure = translate(&evaluated(&source).unwrap(), &source, &Vocabulary::default()).unwrap_err();
    assert!(failure.text.contains("does not call sync"), "{failure:?}");
}
