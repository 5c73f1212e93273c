//! From tables to what a daemon runs: which keys may be where, what a mirror inherits, and its options as the same
//! structs that the command line fills.

use super::read::{Document, Entry, Fault, Place, Table, Value, parse, read};
use super::relations;
use super::schema::{self, Shape, check_entry, nearest};
use crate::cli::CliError;
use crate::cli::deadline::DeadlineArgs;
use crate::cli::ending::EndingArgs;
use crate::cli::hooking::ReceiverHooksArgs;
use crate::cli::hooks::HookOptions;
use crate::cli::hosts::HostsArgs;
use crate::cli::launch::{PortArg, SendArgs};
use crate::cli::logging::LoggingArgs;
use crate::cli::looking::LookingArgs;
use crate::cli::network::NetworkArgs;
use crate::cli::priority::PriorityArgs;
use crate::cli::receive::{EndpointArgs, SigningArgs};
use crate::cli::reporting::ReportingArgs;
use crate::cli::target::{Target, check_module, is_target};
use crate::cli::text::escaped;
use crate::cli::writing::{OfferArgs, WritingArgs};
use clap::Args;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where drop-ins are, beside the main file.
const DROP_INS: &str = "mirrors.d";

/// Keys of options that name files; a daemon has no standard input and no directory of its own.
const FILE_KEYS: [&str; 7] = [
    "exclude-from",
    "include-from",
    "files-from",
    "pid-file",
    "status-file",
    "log-file",
    "syslog-socket",
];

/// What can be said of a mirror.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct MirrorOptions {
    #[command(flatten)]
    pub(in crate::cli) send: SendArgs,
    #[command(flatten)]
    pub(in crate::cli) writing: WritingArgs,
}

/// What can be said of the endpoint behind which all modules are.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct EndpointOptions {
    #[command(flatten)]
    pub(in crate::cli) endpoint: EndpointArgs,
    #[command(flatten)]
    pub(in crate::cli) signing: SigningArgs,
    #[command(flatten)]
    pub(in crate::cli) network: NetworkArgs,
}

/// What can be said of the process.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct ProcessOptions {
    #[command(flatten)]
    pub(in crate::cli) priority: PriorityArgs,
    /// Write the number of the process into FILE, and hold a lock on it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) pid_file: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) reporting: ReportingArgs,
    /// How many mirrors may be brought in sync at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) max_transfers: Option<u16>,
}

/// All that can be said in `[settings]`.
#[derive(Debug, Clone, Default, Args)]
struct Settings {
    #[command(flatten)]
    mirror: MirrorOptions,
    #[command(flatten)]
    hosts: HostsArgs,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[arg(long)]
    pid_file: Option<PathBuf>,
    #[command(flatten)]
    reporting: ReportingArgs,
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    max_transfers: Option<u16>,
    #[command(flatten)]
    logging: LoggingArgs,
}

/// Keys of options of an endpoint, which trees are offered behind, or of whoever connects. A tree has none of its own.
pub(super) const ENDPOINT_KEYS: [&str; 5] = ["port", "contimeout", "bwlimit", "congestion", "timeout"];

/// A source and its targets.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Mirror {
    pub(in crate::cli) name: String,
    pub(in crate::cli) source: PathBuf,
    pub(in crate::cli) targets: Vec<OsString>,
    /// A tree that receivers pull: its targets are those that connect.
    pub(in crate::cli) is_offered: bool,
    pub(in crate::cli) options: MirrorOptions,
    /// What runs when something happens to it.
    pub(in crate::cli) hooks: Vec<PlannedHook>,
    pub(super) place: Place,
    /// What was said of it and inherited, its own first.
    pub(super) entries: Vec<Entry>,
}

/// A program that runs when something happens.
#[derive(Debug, Clone)]
pub(in crate::cli) struct PlannedHook {
    pub(in crate::cli) options: HookOptions,
    pub(super) place: Place,
    pub(super) entries: Vec<Entry>,
}

/// A directory that is offered.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Module {
    pub(in crate::cli) name: String,
    pub(in crate::cli) path: PathBuf,
    /// The tree that it pulls, if it does not wait for senders.
    pub(in crate::cli) from: Option<OsString>,
    pub(in crate::cli) options: OfferArgs,
    pub(super) place: Place,
    pub(super) entries: Vec<Entry>,
}

/// Everything that a daemon runs.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Configuration {
    pub(in crate::cli) process: ProcessOptions,
    /// The log, which alone of all that is of the process can become another while it runs.
    pub(in crate::cli) logging: LoggingArgs,
    pub(in crate::cli) endpoint: EndpointOptions,
    pub(in crate::cli) mirrors: Vec<Mirror>,
    pub(in crate::cli) modules: Vec<Module>,
    pub(in crate::cli) hooks: Vec<PlannedHook>,
    pub(super) settings: Vec<Entry>,
}

impl Mirror {
    /// The port for one of its targets; directories have none.
    pub(in crate::cli) fn port_for(&self, target: &OsStr) -> PortArg {
        if is_target(target) {
            self.options.send.port()
        } else {
            PortArg::default()
        }
    }

    /// Whether running it means the same as running another, but for its targets.
    pub(in crate::cli) fn is_like(&self, other: &Mirror) -> bool {
        let but = &["targets"];
        options_said(&self.entries, but) == options_said(&other.entries, but)
            && are_alike(&self.hooks, &other.hooks)
    }
}

/// Whether hooks mean the same as others.
fn are_alike(these: &[PlannedHook], others: &[PlannedHook]) -> bool {
    let said = |hooks: &[PlannedHook]| -> Vec<Vec<(String, Value)>> {
        let of = |hook: &PlannedHook| {
            let said = options_said(&hook.entries, &["mirrors", "modules"]);
            let owned = said
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.clone()));
            owned.collect()
        };
        hooks.iter().map(of).collect()
    };
    said(these) == said(others)
}

impl Module {
    /// Whether offering it means the same as offering another.
    pub(in crate::cli) fn is_like(&self, other: &Module) -> bool {
        options_said(&self.entries, &[]) == options_said(&other.entries, &[])
    }
}

impl Configuration {
    /// A tree that is offered, and nothing else.
    pub(in crate::cli) fn offering(
        name: String,
        source: PathBuf,
        send: SendArgs,
        endpoint: EndpointOptions,
    ) -> Configuration {
        let place = Place {
            file: "".into(),
            line: 1,
            is_drop_in: false,
        };
        let tree = Mirror {
            name,
            source,
            targets: Vec::new(),
            is_offered: true,
            options: MirrorOptions {
                send,
                ..MirrorOptions::default()
            },
            hooks: Vec::new(),
            place,
            entries: Vec::new(),
        };
        Configuration {
            endpoint,
            mirrors: vec![tree],
            ..Configuration::default()
        }
    }

    /// The names of what receivers may pull.
    pub(in crate::cli) fn trees(&self) -> Vec<String> {
        let offered = self.mirrors.iter().filter(|mirror| mirror.is_offered);
        offered.map(|mirror| mirror.name.clone()).collect()
    }

    /// Whether anybody connects to it: receivers that pull, or senders.
    pub(in crate::cli) fn listens(&self) -> bool {
        self.mirrors.iter().any(|mirror| mirror.is_offered)
            || self.modules.iter().any(|module| module.from.is_none())
    }

    /// Whether the endpoint of another is the same.
    pub(in crate::cli) fn has_endpoint_of(&self, other: &Configuration) -> bool {
        self.said::<EndpointOptions>() == other.said::<EndpointOptions>()
    }

    /// Whether the process of another is the same.
    pub(in crate::cli) fn has_process_of(&self, other: &Configuration) -> bool {
        self.said::<ProcessOptions>() == other.said::<ProcessOptions>()
    }

    /// Whether the hooks of its modules are those of another.
    pub(in crate::cli) fn has_module_hooks_of(&self, other: &Configuration) -> bool {
        let said = |configuration: &Configuration| -> Vec<Vec<(String, Value)>> {
            let hooks = configuration
                .hooks
                .iter()
                .filter(|hook| !hook.options.modules.is_empty());
            let of = |hook: &PlannedHook| {
                let said = options_said(&hook.entries, &[]).into_iter();
                said.map(|(key, value)| (key.to_owned(), value.clone())).collect()
            };
            hooks.map(of).collect()
        };
        said(self) == said(other)
    }

    fn said<A: Args>(&self) -> Vec<(&str, &Value)> {
        let keys = schema::keys::<A>();
        let mut said = options_said(&self.settings, &[]);
        said.retain(|(name, _)| keys.iter().any(|(key, _)| key == name));
        said
    }
}

/// Keys and values without their places. The order counts: it is that of rules.
fn options_said<'a>(entries: &'a [Entry], but: &[&str]) -> Vec<(&'a str, &'a Value)> {
    let said = entries.iter().filter(|entry| !but.contains(&entry.key.as_str()));
    said.map(|entry| (entry.key.as_str(), &entry.value)).collect()
}

/// Reads a configuration and its drop-ins. All that is wrong is found at once.
pub(in crate::cli) fn load(path: &Path) -> Result<Configuration, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut document = read(path, false, &mut faults);
    for drop_in in drop_ins(path, &mut faults) {
        let more = read(&drop_in, true, &mut faults);
        document.mirrors.extend(more.mirrors);
        document.trees.extend(more.trees);
        document.modules.extend(more.modules);
        document.hooks.extend(more.hooks);
    }
    planned(document, faults)
}

/// Checks a text as if it was a configuration of that name, without drop-ins.
pub(in crate::cli) fn check_text(text: &str, name: &str) -> Result<Configuration, Vec<Fault>> {
    let mut faults = Vec::new();
    let document = parse(text, &name.into(), false, &mut faults);
    planned(document, faults)
}

fn planned(document: Document, mut faults: Vec<Fault>) -> Result<Configuration, Vec<Fault>> {
    let configuration = Planner { faults: &mut faults }.plan(document);
    if let Some(configuration) = configuration.as_ref().filter(|_| faults.is_empty()) {
        relations::check(configuration, &mut faults);
    }
    match configuration {
        Some(configuration) if faults.is_empty() => Ok(configuration),
        _ => Err(faults),
    }
}

/// The keys that a `[[mirror]]` and a `[[module]]` may have.
pub(in crate::cli) fn keys_of_mirrors_and_modules() -> (Vec<String>, Vec<String>) {
    let words = Vocabulary::new();
    let names = |keys: Vec<(String, Shape)>| keys.into_iter().map(|(key, _)| key).collect();
    (names(words.mirror), names(words.module))
}

/// The drop-ins by name; hidden files and those of editors are not among them.
fn drop_ins(main: &Path, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let dir = main.with_file_name(DROP_INS);
    let mut fault = |error: std::io::Error| {
        faults.push(Fault(format!(
            "{}: cannot list the drop-ins: {error}",
            escaped(&dir)
        )));
    };
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            fault(error);
            return Vec::new();
        }
    };
    let mut paths = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => paths.push(entry.path()),
            Err(error) => fault(error),
        }
    }
    paths.retain(|path| {
        let name = path.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default();
        name.ends_with(b".toml") && !name.starts_with(b".")
    });
    paths.sort();
    paths
}

/// Keys by the sections in which they may be.
struct Vocabulary {
    settings: Vec<(String, Shape)>,
    mirror: Vec<(String, Shape)>,
    tree: Vec<(String, Shape)>,
    module: Vec<(String, Shape)>,
    process: Vec<(String, Shape)>,
    hook: Vec<(String, Shape)>,
}

impl Vocabulary {
    fn new() -> Vocabulary {
        let process = schema::keys::<ProcessOptions>();
        let mut mirror = schema::keys::<MirrorOptions>();
        mirror.retain(|(key, _)| !process.iter().any(|(other, _)| other == key));
        let module = schema::keys::<OfferArgs>();
        let mut tree = mirror.clone();
        tree.retain(|(key, _)| {
            !ENDPOINT_KEYS.contains(&key.as_str()) && !module.iter().any(|(other, _)| other == key)
        });
        Vocabulary {
            settings: schema::keys::<Settings>(),
            mirror,
            tree,
            module,
            process,
            hook: schema::keys::<HookOptions>(),
        }
    }
}

struct Planner<'a> {
    faults: &'a mut Vec<Fault>,
}

impl Planner<'_> {
    fn plan(mut self, document: Document) -> Option<Configuration> {
        let words = Vocabulary::new();
        let settings = document.settings.inspect(|table| {
            self.check::<Settings>(table, &words.settings, &[], &words);
        });
        let (settings, place) = match settings {
            Some(table) => (table.entries, Some(table.place)),
            None => (Vec::new(), None),
        };
        let mirrors = document.mirrors.into_iter();
        let mut mirrors: Vec<_> = mirrors
            .filter_map(|table| self.mirror(table, &settings, &words))
            .collect();
        let trees = document.trees.into_iter();
        mirrors.extend(trees.filter_map(|table| self.tree(table, &settings, &words)));
        let modules = document.modules.into_iter();
        let modules: Vec<_> = modules
            .filter_map(|table| self.module(table, &settings, &words))
            .collect();
        let hooks = document.hooks.into_iter();
        let hooks: Vec<_> = hooks.filter_map(|table| self.hook(table, &words)).collect();
        for mirror in &mut mirrors {
            let own = hooks
                .iter()
                .filter(|hook| hook.options.is_for_mirror(&mirror.name));
            mirror.hooks = own.cloned().collect();
        }
        self.check_needs::<ProcessOptions>(&settings, &words.process);
        self.check_needs::<LoggingArgs>(&settings, &schema::keys::<LoggingArgs>());
        if !self.faults.is_empty() {
            return None;
        }
        let nowhere = Place {
            file: "".into(),
            line: 1,
            is_drop_in: false,
        };
        let place = place.unwrap_or(nowhere);
        let process = self.options::<ProcessOptions>(&settings, &place)?;
        let logging = self.options::<LoggingArgs>(&settings, &place)?;
        let endpoint = self.options::<EndpointOptions>(&settings, &place)?;
        Some(Configuration {
            process,
            logging,
            endpoint,
            mirrors,
            modules,
            hooks,
            settings,
        })
    }

    fn mirror(&mut self, table: Table, settings: &[Entry], words: &Vocabulary) -> Option<Mirror> {
        self.check::<MirrorOptions>(&table, &words.mirror, &["name", "source", "targets"], words);
        let name = self.name(&table);
        let source = self.directory(&table, "source");
        let targets = self.targets(&table);
        self.check_use(&table, targets.as_deref().unwrap_or_default(), words);
        let entries = inherited(table.entries, settings, &words.mirror);
        self.check_needs::<MirrorOptions>(&entries, &words.mirror);
        let options = self.options::<MirrorOptions>(&entries, &table.place);
        if let Some(options) = &options {
            self.check_options(
                &table.place,
                options.send.check().and_then(|()| options.writing.check()),
            );
        }
        Some(Mirror {
            name: name?,
            source: source?,
            targets: targets?,
            is_offered: false,
            options: options?,
            hooks: Vec::new(),
            place: table.place,
            entries,
        })
    }

    /// A tree is a mirror whose targets connect themselves.
    fn tree(&mut self, table: Table, settings: &[Entry], words: &Vocabulary) -> Option<Mirror> {
        self.check::<MirrorOptions>(&table, &words.tree, &["name", "source"], words);
        let name = self.name(&table);
        let source = self.directory(&table, "source");
        let entries = inherited(table.entries, settings, &words.tree);
        self.check_needs::<MirrorOptions>(&entries, &words.tree);
        let options = self.options::<MirrorOptions>(&entries, &table.place);
        if let Some(options) = &options {
            self.check_options(&table.place, options.send.check());
        }
        Some(Mirror {
            name: name?,
            source: source?,
            targets: Vec::new(),
            is_offered: true,
            options: options?,
            hooks: Vec::new(),
            place: table.place,
            entries,
        })
    }

    fn hook(&mut self, table: Table, words: &Vocabulary) -> Option<PlannedHook> {
        self.check::<HookOptions>(&table, &words.hook, &[], words);
        if !table.entries.iter().any(|entry| entry.key == "command") {
            let text = "there is no command here (add command = [\"/path/of/a/program\", \"argument\"])";
            self.faults.push(Fault::at(&table.place, text.to_owned()));
        }
        let options = self.options::<HookOptions>(&table.entries, &table.place)?;
        Some(PlannedHook {
            options,
            place: table.place,
            entries: table.entries,
        })
    }

    fn module(&mut self, table: Table, settings: &[Entry], words: &Vocabulary) -> Option<Module> {
        self.check::<OfferArgs>(&table, &words.module, &["name", "path", "from"], words);
        let name = self.name(&table);
        let path = self.directory(&table, "path");
        let from = self.from(&table);
        let is_of_address = |entry: &&Entry| ["hosts-allow", "hosts-deny"].contains(&entry.key.as_str());
        if let (Some(_), Some(entry)) = (&from, table.entries.iter().find(is_of_address)) {
            let text = format!(
                "{} has no meaning with from: this module connects itself (leave one of them out)",
                entry.key
            );
            self.faults.push(Fault::at(&entry.place, text));
        }
        let entries = inherited(table.entries, settings, &words.module);
        self.check_needs::<OfferArgs>(&entries, &words.module);
        let options = self.options::<OfferArgs>(&entries, &table.place);
        if let Some(options) = &options {
            self.check_options(&table.place, options.check());
        }
        Some(Module {
            name: name?,
            path: path?,
            from,
            options: options?,
            place: table.place,
            entries,
        })
    }

    /// What is wrong with options although each can be.
    fn check_options(&mut self, place: &Place, outcome: Result<(), CliError>) {
        if let Err(CliError::Failed(text) | CliError::Usage(text)) = outcome {
            self.faults.push(Fault::at(place, text));
        }
    }

    /// Looks at every entry of a table alone.
    fn check<A: Args>(&mut self, table: &Table, keys: &[(String, Shape)], own: &[&str], words: &Vocabulary) {
        for entry in &table.entries {
            if own.contains(&entry.key.as_str()) {
                continue;
            }
            match keys.iter().find(|(key, _)| *key == entry.key) {
                Some((_, shape)) => {
                    if let Err(fault) = check_entry::<A>(entry, *shape) {
                        self.faults.push(fault);
                    }
                    self.check_file(entry);
                }
                None => self.faults.push(unknown(entry, keys, own, words)),
            }
        }
    }

    /// Files are named by absolute paths.
    fn check_file(&mut self, entry: &Entry) {
        let values = match &entry.value {
            Value::Text(text) if FILE_KEYS.contains(&entry.key.as_str()) => std::slice::from_ref(text),
            Value::List(list) if FILE_KEYS.contains(&entry.key.as_str()) => list,
            _ => return,
        };
        for value in values.iter().filter(|value| !Path::new(value).is_absolute()) {
            let text = format!("{}: {value:?} is not a path that begins with a slash", entry.key);
            self.faults.push(Fault::at(&entry.place, text));
        }
    }

    /// Some of a mirror's own keys are for one kind of targets only.
    fn check_use(&mut self, table: &Table, targets: &[OsString], words: &Vocabulary) {
        let remote = targets.iter().filter(|target| is_target(target)).count();
        for entry in &table.entries {
            let text = if entry.key == "port" && remote == 0 {
                "port has no meaning where all targets are directories (leave it out)".to_owned()
            } else if words.module.iter().any(|(key, _)| *key == entry.key) && remote == targets.len() {
                format!(
                    "{0} is for targets that are directories here; of others, their receivers decide (leave it out)",
                    entry.key
                )
            } else {
                continue;
            };
            if !targets.is_empty() {
                self.faults.push(Fault::at(&entry.place, text));
            }
        }
    }

    /// Some options have no meaning without others, which may be inherited.
    fn check_needs<A: Args>(&mut self, entries: &[Entry], keys: &[(String, Shape)]) {
        for entry in entries {
            let Some((_, shape)) = keys.iter().find(|(key, _)| *key == entry.key) else {
                continue;
            };
            // What is wrong with the entry itself was said where it is.
            for needed in check_entry::<A>(entry, *shape).unwrap_or_default() {
                if !entries.iter().any(|entry| entry.key == needed) {
                    let text = format!(
                        "{} has no meaning without {needed} (add it, or leave both out)",
                        entry.key
                    );
                    self.faults.push(Fault::at(&entry.place, text));
                }
            }
        }
    }

    fn options<A: Args>(&mut self, entries: &[Entry], place: &Place) -> Option<A> {
        if !self.faults.is_empty() {
            return None;
        }
        schema::read(entries, place)
            .map_err(|fault| self.faults.push(fault))
            .ok()
    }

    fn name(&mut self, table: &Table) -> Option<String> {
        let (name, place) = self.text(table, "name")?;
        if let Err(fault) = check_module(&name) {
            let fault = fault
                .replace("the module has", "name: it has")
                .replace("name a module", "be a name");
            self.faults.push(Fault::at(&place, fault));
            return None;
        }
        Some(name)
    }

    fn directory(&mut self, table: &Table, key: &str) -> Option<PathBuf> {
        let (text, place) = self.text(table, key)?;
        if !Path::new(&text).is_absolute() {
            let text = format!("{key}: {text:?} is not the path of a directory that begins with a slash");
            self.faults.push(Fault::at(&place, text));
            return None;
        }
        Some(PathBuf::from(text))
    }

    /// The tree that a module pulls, if it pulls one.
    fn from(&mut self, table: &Table) -> Option<OsString> {
        table.entries.iter().find(|entry| entry.key == "from")?;
        let (word, place) = self.text(table, "from")?;
        let fault = match Target::parse(OsStr::new(&word)) {
            _ if !is_target(OsStr::new(&word)) => {
                format!("from: {word:?} is a directory here (write HOST::TREE)")
            }
            Ok(target) if !target.path.is_root() => {
                "from: a tree is pulled as a whole (leave the path out)".to_owned()
            }
            Ok(_) => return Some(OsString::from(word)),
            Err(error) => format!("from: {error}"),
        };
        self.faults.push(Fault::at(&place, fault));
        None
    }

    fn text(&mut self, table: &Table, key: &str) -> Option<(String, Place)> {
        match table.entries.iter().find(|entry| entry.key == key) {
            Some(Entry {
                value: Value::Text(text),
                place,
                ..
            }) => Some((text.clone(), place.clone())),
            Some(entry) => {
                self.faults
                    .push(Fault::at(&entry.place, format!("{key} takes a text in quotes")));
                None
            }
            None => {
                self.faults.push(Fault::at(
                    &table.place,
                    format!("there is no {key} here (add {key} = \"...\")"),
                ));
                None
            }
        }
    }

    fn targets(&mut self, table: &Table) -> Option<Vec<OsString>> {
        let Some(entry) = table.entries.iter().find(|entry| entry.key == "targets") else {
            let text = "there are no targets here (add targets = [\"HOST::MODULE\"])";
            self.faults.push(Fault::at(&table.place, text));
            return None;
        };
        let mut wrong = |text: String| {
            self.faults.push(Fault::at(&entry.place, text));
            None
        };
        let Value::List(list) = &entry.value else {
            return wrong("targets takes an array, as in [\"HOST::MODULE\", \"/a/directory\"]".to_owned());
        };
        if list.is_empty() {
            return wrong("targets: there has to be one at least".to_owned());
        }
        for word in list {
            if !is_target(OsStr::new(word)) && !Path::new(word).is_absolute() {
                return wrong(format!(
                    "targets: {word:?} is neither HOST::MODULE[/PATH] nor driftless://HOST:PORT/MODULE[/PATH] nor the path \
                     of a directory that begins with a slash"
                ));
            }
            if is_target(OsStr::new(word))
                && let Err(error) = Target::parse(OsStr::new(word))
            {
                return wrong(error.to_string());
            }
        }
        Some(list.iter().map(OsString::from).collect())
    }
}

/// A table's own entries, and behind them those of the settings that it does not have itself.
fn inherited(own: Vec<Entry>, settings: &[Entry], keys: &[(String, Shape)]) -> Vec<Entry> {
    let mut entries = own;
    for entry in settings {
        let is_key = keys.iter().any(|(key, _)| *key == entry.key);
        if is_key && !entries.iter().any(|own| own.key == entry.key) {
            entries.push(entry.clone());
        }
    }
    entries
}

/// Options of the commands that are for somebody who looks on, or for a run that ends.
fn for_onlookers() -> Vec<String> {
    let keys = schema::keys::<LookingArgs>().into_iter();
    let keys = keys.chain(schema::keys::<DeadlineArgs>());
    let keys = keys.chain(schema::keys::<EndingArgs>());
    keys.map(|(key, _)| key).collect()
}

fn unknown(entry: &Entry, keys: &[(String, Shape)], own: &[&str], words: &Vocabulary) -> Fault {
    let key = &entry.key;
    let has = |keys: &[(String, Shape)]| keys.iter().any(|(other, _)| other == key);
    let text = if key == "from" {
        "from belongs into a [[module]], which pulls".to_owned()
    } else if has(&words.mirror) && own == ["name", "source"] {
        format!(
            "{key} is not of a tree: the receivers connect to the endpoint of [settings], and write themselves (leave it out)"
        )
    } else if key == "targets" && own == ["name", "source"] {
        "a [[tree]] has no targets: receivers connect for it (write [[mirror]] to send it somewhere)"
            .to_owned()
    } else if has(&words.process) || has(&words.settings) {
        format!("{key} belongs into [settings]: it is for the whole process")
    } else if has(&words.mirror) || ["source", "targets"].contains(&key.as_str()) {
        format!("{key} belongs into a [[mirror]]")
    } else if schema::keys::<ReceiverHooksArgs>()
        .iter()
        .any(|(other, _)| other == key)
    {
        format!("{key} is written as a [[hook]], with on, command, paths and timeout")
    } else if for_onlookers().iter().any(|other| other == key) {
        format!("{key} has no meaning for a daemon: it is for `driftless mirror`, `seed` and `send`")
    } else if key == "path" {
        "path belongs into a [[module]]; the tree of a mirror is its source".to_owned()
    } else if key == "name" {
        "name belongs into a [[mirror]] or [[module]]".to_owned()
    } else {
        let names = keys
            .iter()
            .map(|(key, _)| key.as_str())
            .chain(own.iter().copied());
        match nearest(key, names) {
            Some(near) => format!("{} is not a key here: did you mean {near}?", escaped(key)),
            None => format!(
                "{} is not a key here (keys are the long options of `driftless send --help` without the dashes)",
                escaped(key)
            ),
        }
    };
    Fault::at(&entry.place, text)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
