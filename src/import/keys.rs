//! What lsyncd's own keys become. Those of the table `rsync` are in [`super::rsync`].

use super::rsync::OPTIONS;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Code of its own makes of it what the text says.
    Carried(&'static str),
    /// Something else does what it was for.
    Replaced(&'static str),
    /// It has no meaning here, and nothing is lost.
    Dropped(&'static str),
    /// The mirror would do something else without it.
    Stops(&'static str),
}

use Fate::{Carried, Dropped, Replaced, Stops};

const LOG: &str = "the daemon writes to standard error, which the service manager keeps (`journalctl -u driftless`); `log-file` and \
                   `syslog` of `[settings]` write elsewhere, too";
const NO_PROGRAM: &str =
    "no program is run, so none has exit codes; what fails is tried again and told by `driftless status`";
const NO_SHELL: &str = "there is no remote shell: keys of both ends are exchanged once, see `pair`";
const NO_TUNNEL: &str = "the connection is encrypted, and needs one UDP port of the receiver";
const ONE_CONNECTION: &str = "one connection to each target does everything at once";
pub(super) const ACTION: &str = "functions and commands of a configuration are not run";

/// Keys of `settings`.
pub(super) const SETTINGS: [(&str, Fate); 13] = [
    ("delay", Carried("`delay` of each mirror (lsyncd 2.0)")),
    ("inotifyMode", Carried("`writes`")),
    (
        "insist",
        Dropped("always: a target that is down is tried again, and holds up nothing else"),
    ),
    ("logfacility", Replaced(LOG)),
    ("logfile", Replaced(LOG)),
    ("logident", Replaced(LOG)),
    ("maxDelays", Carried("`batch-max` of each mirror")),
    ("maxProcesses", Dropped(ONE_CONNECTION)),
    (
        "nodaemon",
        Dropped("always: it runs in the foreground, under a service manager"),
    ),
    (
        "onepass",
        Replaced("`driftless seed` and `driftless mirror --once` end when both sides are equal"),
    ),
    ("pidfile", Carried("`pid-file`")),
    (
        "statusFile",
        Carried("`status-file`, which has driftless's own text"),
    ),
    ("statusInterval", Carried("`status-interval`")),
];

/// Keys of `sync`.
pub(super) const SYNC: [(&str, Fate); 38] = [
    ("action", Stops(ACTION)),
    (
        "batchSizeLimit",
        Replaced("large files have lanes of their own and hold up nothing; `big-file` can delay them"),
    ),
    ("checkgauge", Dropped("`driftless config check` knows all keys")),
    ("collect", Dropped("what it did after each transfer is not done")),
    (
        "crontab",
        Carried("`audit-interval`: how often everything is looked at beside the events"),
    ),
    ("delay", Carried("`delay`")),
    ("delete", Carried("`delete`")),
    ("exclude", Carried("`exclude`")),
    ("excludeFrom", Carried("`exclude-from`")),
    ("exitcodes", Dropped(NO_PROGRAM)),
    ("filter", Carried("`filter`")),
    ("filterFrom", Carried("`filter`")),
    ("host", Carried("`targets`, as HOST::MODULE")),
    ("init", Carried("`initial`")),
    ("maxDelays", Carried("`batch-max`")),
    ("maxProcesses", Dropped(ONE_CONNECTION)),
    ("minDelay", Dropped("`delay` alone counts")),
    (
        "monitor",
        Dropped("the best way to watch that works is taken, see `watch`"),
    ),
    ("name", Carried("`name`")),
    ("onAttrib", Stops(ACTION)),
    ("onCreate", Stops(ACTION)),
    ("onDelete", Stops(ACTION)),
    ("onFull", Stops(ACTION)),
    ("onModify", Stops(ACTION)),
    ("onMove", Dropped("always: moves are moves on the target, too")),
    ("onStartup", Stops(ACTION)),
    (
        "prepare",
        Stops("a function that may change the configuration is not run"),
    ),
    ("rsync", Carried("see its keys")),
    ("rsyncExitCodes", Dropped(NO_PROGRAM)),
    ("rsyncOps", Carried("each option by its own (lsyncd 2.0)")),
    ("rsyncOpts", Carried("each option by its own (lsyncd 2.0)")),
    ("source", Carried("`source`")),
    ("ssh", Carried("see its keys")),
    ("sshExitCodes", Dropped(NO_PROGRAM)),
    (
        "subdirs",
        Stops("only what is directly in the source was looked at"),
    ),
    ("target", Carried("`targets`")),
    ("targetdir", Carried("`targets`, as HOST::MODULE")),
    ("tunnel", Replaced(NO_TUNNEL)),
];

/// Keys of `ssh`, and of the `xargs` of lsyncd 2.1.
pub(super) const SSH: [(&str, Fate); 8] = [
    ("ssh.binary", Replaced(NO_SHELL)),
    ("ssh.identityFile", Replaced(NO_SHELL)),
    ("ssh.options", Replaced(NO_SHELL)),
    (
        "ssh.port",
        Replaced("UDP port 4433 of the receiver, or that of `port`"),
    ),
    ("ssh._extra", Replaced(NO_SHELL)),
    ("xargs.binary", Replaced(NO_SHELL)),
    ("xargs.delimiter", Replaced(NO_SHELL)),
    ("xargs._extra", Replaced(NO_SHELL)),
];

/// What becomes of a key of one of the tables above.
pub(super) fn fate(table: &[(&str, Fate)], key: &str) -> Option<Fate> {
    table.iter().find(|(name, _)| *name == key).map(|(_, fate)| *fate)
}

/// All keys that are known, such as `settings.logfile`, `delay`, `rsync.archive` and `ssh.port`, and what becomes of each.
pub fn table() -> Vec<(String, String)> {
    let told = |fate: &Fate| match fate {
        Fate::Carried(text) => (*text).to_owned(),
        Fate::Replaced(text) => format!("replaced: {text}"),
        Fate::Dropped(text) => format!("dropped: {text}"),
        Fate::Stops(text) => format!("**not active**: {text}"),
    };
    let settings = SETTINGS
        .iter()
        .map(|(name, fate)| (format!("settings.{name}"), told(fate)));
    let others = SYNC.iter().chain(&SSH);
    let others = others.map(|(name, fate)| ((*name).to_owned(), told(fate)));
    let options = OPTIONS.iter().filter(|option| option.is_key);
    let options = options.map(|option| (format!("rsync.{}", option.name), option.effect.told()));
    let extra = (
        "rsync._extra".to_owned(),
        "each word as the key of that name".to_owned(),
    );
    settings.chain(others).chain(options).chain([extra]).collect()
}
