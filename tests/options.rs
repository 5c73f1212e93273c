//! The table of options in the documentation: nothing that users of rsync and lsyncd know is missing from it, and what it names
//! as ours exists.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Every option of `rsync --help`, version 3.5.0, by its first name.
const RSYNC: &str = "\
--verbose --info --debug --stderr --quiet --no-motd --checksum --archive --no-OPTION --recursive --inc-recursive \
--no-inc-recursive --no-i-r --relative --no-implied-dirs --backup --backup-dir --suffix --update --inplace --append \
--append-verify --dirs --old-dirs --old-d --mkpath --links --copy-links --copy-unsafe-links --safe-links --insecure-links \
--confine-root --munge-links --copy-dirlinks --keep-dirlinks --hard-links --perms --executability --chmod --acls --xattrs \
--owner --group --devices --copy-devices --write-devices --specials --drop-D -D --times --atimes --open-noatime --crtimes \
--omit-dir-times --omit-link-times --super --fake-super --sparse --preallocate --dry-run --whole-file --no-whole-file \
--checksum-choice --one-file-system --block-size --rsh --rsync-path --existing --ignore-non-existing --ignore-existing \
--remove-source-files --del --delete --delete-before --delete-during --delete-delay --delete-after --delete-excluded \
--ignore-missing-args --delete-missing-args --ignore-errors --force --max-delete --max-size --min-size --max-alloc --partial \
--partial-dir --delay-updates --prune-empty-dirs --numeric-ids --usermap --groupmap --chown --timeout --contimeout \
--ignore-times --size-only --modify-window --temp-dir --fuzzy --compare-dest --copy-dest --link-dest --compress \
--compress-choice --compress-level --compress-threads --skip-compress --cvs-exclude --filter -F --exclude --exclude-from \
--include --include-from --files-from --from0 --old-args --secluded-args --trust-sender --copy-as --address --port --sockopts \
--blocking-io --outbuf --stats --8-bit-output --human-readable --progress -P --itemize-changes --remote-option --out-format \
--log-file --log-file-format --password-file --early-input --list-only --bwlimit --stop-after --stop-at --fsync --write-batch \
--only-write-batch --read-batch --protocol --iconv --checksum-seed --ipv4 --ipv6 --version --help";

/// Every key of lsyncd 2.2.3, and its flags.
const LSYNCD: &str = "\
settings.logfile settings.logfacility settings.logident settings.pidfile settings.nodaemon settings.statusFile \
settings.statusInterval settings.insist settings.inotifyMode settings.maxProcesses settings.maxDelays -delay -insist -log \
-logfile -nodaemon -pidfile -runner -help -version -rsync -rsyncssh -direct default.rsync default.rsyncssh default.direct \
source target host targetdir delay maxDelays maxProcesses init delete exclude excludeFrom filter filterFrom exitcodes \
rsyncExitCodes sshExitCodes prepare action collect checkgauge onAttrib onCreate onModify onDelete onMove onStartup \
ssh.binary ssh.identityFile ssh.options ssh.port ssh._extra rsync.acls rsync.append rsync.append_verify rsync.archive \
rsync.backup rsync.backup_dir rsync.binary rsync.bwlimit rsync.checksum rsync.chmod rsync.chown rsync.compress \
rsync.copy_dirlinks rsync.copy_links rsync.cvs_exclude rsync.dry_run rsync.executability rsync.existing rsync.group \
rsync.groupmap rsync.hard_links rsync.ignore_times rsync.inplace rsync.ipv4 rsync.ipv6 rsync.keep_dirlinks rsync.links \
rsync.omit_dir_times rsync.omit_link_times rsync.one_file_system rsync.owner rsync.password_file rsync.perms \
rsync.protect_args rsync.prune_empty_dirs rsync.quiet rsync.rsh rsync.rsync_path rsync.sparse rsync.suffix rsync.temp_dir \
rsync.timeout rsync.times rsync.update rsync.usermap rsync.verbose rsync.whole_file rsync.xattrs rsync._extra";

struct Section {
    /// Names in the left column, and what the right one says.
    rows: Vec<(Vec<String>, String)>,
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/options.md");
    std::fs::read_to_string(path).unwrap()
}

/// The table under a heading.
fn section(page: &str, heading: &str) -> Section {
    let body = page
        .split("\n## ")
        .find(|part| part.starts_with(&format!("{heading}\n")))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let rows = body.lines().filter_map(|line| {
        let row = line.strip_prefix("| `")?.strip_suffix(" |")?;
        let (names, ours) = row.split_once(" | ")?;
        let names = names
            .split(", ")
            .map(|name| name.trim_matches('`').to_owned())
            .collect();
        Some((names, ours.to_owned()))
    });
    Section { rows: rows.collect() }
}

impl Section {
    #[track_caller]
    fn has_all(&self, names: &str) {
        let mut known = BTreeSet::new();
        for (names, ours) in &self.rows {
            assert!(ours.len() > 3, "{names:?}: {ours:?} says nothing");
            for name in names {
                assert!(known.insert(name.as_str()), "{name} has two rows");
            }
        }
        let missing: Vec<_> = names
            .split_whitespace()
            .filter(|name| !known.contains(name))
            .collect();
        assert!(missing.is_empty(), "without a row: {missing:?}");
    }
}

#[test]
fn every_option_of_rsync_and_lsyncd_has_a_row() {
    let page = page();
    section(&page, "rsync").has_all(RSYNC);
    section(&page, "lsyncd").has_all(LSYNCD);
}

/// Every option that the installed rsync tells of, by every name that it has: in its help, in that of its daemon, and in its
/// manual.
#[test]
fn every_option_of_the_installed_rsync_has_a_row() {
    let run = |command: &mut Command| {
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(help) = run(Command::new("rsync").arg("--help")) else {
        return skip("rsync is not installed");
    };
    let daemon = run(Command::new("rsync").args(["--daemon", "--help"])).unwrap();
    let mut told: BTreeSet<String> = help.lines().chain(daemon.lines()).flat_map(in_help).collect();
    assert!(told.len() > 150, "only {} in its help", told.len());
    let manual = run(Command::new("man").args(["-w", "rsync"]))
        .and_then(|path| run(Command::new("gzip").args(["-dcf", path.trim()])));
    match manual {
        Some(manual) => {
            let named: BTreeSet<String> = manual.lines().flat_map(in_manual).collect();
            assert!(named.len() > 150, "only {} in its manual", named.len());
            told.extend(named);
        }
        None => skip("the manual of rsync is not installed"),
    }
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let page = page();
    section(&page, "rsync").has_all(&told.join(" "));
    if help.starts_with("rsync  version 3.5.") {
        let listed: BTreeSet<&str> = RSYNC.split_whitespace().collect();
        let unknown: Vec<_> = listed
            .into_iter()
            .filter(|name| *name != "--no-OPTION" && !told.contains(name))
            .collect();
        assert!(unknown.is_empty(), "listed above, and not in rsync: {unknown:?}");
    }
}

fn skip(reason: &str) {
    assert!(
        std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_none_or(|value| value != "1"),
        "skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// The names in a line like `--chmod=CHMOD            affect file ...`.
fn in_help(line: &str) -> Vec<String> {
    let names = line.split("  ").next().unwrap_or_default();
    names.split(", ").filter_map(option_name).collect()
}

/// The names in a heading like `.IP "\fB\-\-verbose\fP, \fB\-v\fP"`.
fn in_manual(line: &str) -> Vec<String> {
    let Some(heading) = line.strip_prefix(".IP \"") else {
        return Vec::new();
    };
    let heading = heading.split('"').next().unwrap_or_default();
    let plain = ["\\fB", "\\fI", "\\fP", "\\"]
        .iter()
        .fold(heading.to_owned(), |text, mark| text.replace(mark, ""));
    plain.split(", ").filter_map(option_name).collect()
}

fn option_name(word: &str) -> Option<String> {
    let name = word.split([' ', '=', '[', ',']).next()?;
    (name.starts_with('-') && name.len() > 1).then(|| name.to_owned())
}

#[test]
fn what_the_table_names_exists() {
    let help: String = [
        &["mirror"][..],
        &["seed"],
        &["send"],
        &["receive"],
        &["status"],
        &["daemon"],
        &[],
    ]
    .map(|command| {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    })
    .concat();
    let words: BTreeSet<&str> = help
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .collect();
    let page = page();
    let mut seen = 0;
    for heading in ["rsync", "lsyncd"] {
        for (names, ours) in section(&page, heading).rows {
            // Only what is said to be ours, at the beginning of the column: later words may explain rsync's.
            let Some(option) = ours.strip_prefix('`').and_then(|ours| ours.split('`').next()) else {
                continue;
            };
            for word in option.split([' ', '=']).filter(|word| word.starts_with("--")) {
                assert!(words.contains(word), "{names:?}: there is no {word}");
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "only {seen} options of ours are named");
}
