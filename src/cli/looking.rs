//! Looking before leaping, and telling afterwards: `--dry-run`, `--itemize-changes`, `--stats`.

use super::launch::Session;
use super::narrate::{Detail, Narrator, Style};
use super::output::{self, Printer};
use super::text::{self, escaped};
use super::{CliError, DONE, SOME_FAILED};
use crate::daemon::barrier::Checkpoint;
use crate::daemon::events::AppliedChange;
use crate::daemon::home::Home;
use crate::daemon::status::{STATUS_VERSION, StatusBoard};
use crate::daemon::survey::{self, FarEnd, Kinds, SurveyReport, Totals};
use crate::daemon::{
    Backlog, DaemonError, FailedEntry, Initial, Observer, Phase, SendCounters, SenderOptions, Summary, verbs,
};
use crate::engine::itemize::{Change, Item};
use crate::engine::out_format::{Facts, OutFormat};
use clap::Args;
use driftless_protocol::RelPath;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Flags that say what is shown of changes. They are for who looks on, so a daemon's configuration has none of them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Looking")]
pub(super) struct LookingArgs {
    /// Change nothing on the target: say what would be done, as with -i
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Tell each change in the letters of rsync: `>f.st...... path`
    #[arg(short = 'i', long)]
    itemize_changes: bool,
    /// Tell each change in this form, with rsync's escapes: `%i` its letters, `%n` the path, `%L` where a link leads, `%l` the
    /// length, `%M` the time of modification, `%B` the permissions, `%U` and `%G` owner and group, `%o` send or del., `%f` the
    /// path with that of the source, `%t` the time now, `%p` the number of this process
    #[arg(long, value_name = "FORMAT", value_parser = OutFormat::from_str)]
    out_format: Option<OutFormat>,
    /// Tell numbers at the end
    #[arg(long)]
    stats: bool,
}

/// A survey compares what is there, and knows nothing of what was there at the start.
fn check_initial(options: &SenderOptions) -> Result<(), CliError> {
    match options.initial {
        Some(Initial::Skip) => Err(CliError::usage(
            "--initial skip sends nothing of what is there, so there is nothing to tell before (leave out --dry-run and \
             --itemize-changes)",
        )),
        _ => Ok(()),
    }
}

impl LookingArgs {
    /// Nothing is to be changed.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// What a run changes is compared before, to be told.
    fn tells_items(&self) -> bool {
        self.itemizes() || self.stats
    }

    /// Each change is told.
    fn itemizes(&self) -> bool {
        self.itemize_changes || self.out_format.is_some()
    }

    fn teller(&self, options: &SenderOptions, end: FarEnd<'_>, style: Style) -> Result<Teller, CliError> {
        if style.json && self.out_format.is_some() {
            return Err(CliError::usage(
                "--out-format is for text, --json for programs (leave one out)",
            ));
        }
        Ok(Teller::new(options, end, style, self.out_format.clone()))
    }

    /// Refuses what only a run that ends can tell.
    pub(super) fn check_following(&self) -> Result<(), CliError> {
        if !self.stats && (self.dry_run || !self.itemizes()) {
            return Ok(());
        }
        let text = "--itemize-changes, --out-format and --stats are for a run that ends (use them with `seed` or `mirror --once`; -v tells \
                    each change that is applied, and -n -i what would be)";
        Err(CliError::usage(text))
    }

    /// Says what a run would do; gives the exit status that it would have.
    pub(super) fn preview(
        &self,
        options: &SenderOptions,
        end: FarEnd<'_>,
        style: Style,
    ) -> Result<u8, CliError> {
        check_initial(options)?;
        let teller = self.teller(options, end, style)?;
        let report = survey::run(options, end, &mut |item| teller.tell(&item))?;
        self.tell_report(&teller, &report);
        if self.stats {
            teller.stats(&report.totals, None);
        }
        if let Some(refusal) = &report.refusal {
            return Err(CliError::failed(refusal));
        }
        Ok(match report.unreadable.is_empty() {
            true => DONE,
            false => SOME_FAILED,
        })
    }

    /// As [`LookingArgs::preview`], and then along with every change until the user stops it.
    pub(super) fn preview_following(
        &self,
        session: &Session,
        options: &SenderOptions,
        end: FarEnd<'_>,
        style: Style,
    ) -> Result<u8, CliError> {
        let teller = self.teller(options, end, style)?;
        // What is known of the source by what was sent is not to be touched.
        let scratch = Scratch::new(session, options)?;
        let watching = SenderOptions {
            home: Home::at(&scratch.0),
            ..options.clone()
        };
        let identity = options.identity.fingerprint().to_string();
        let board = StatusBoard::new(identity, &session.home, String::new(), teller.target.clone());
        let printer = Arc::new(Printer::start(None));
        let quiet = Style {
            detail: Detail::Quiet,
            ..style
        };
        let observer = Narrator::new(board, printer, quiet, teller.target.clone());
        survey::follow(
            &watching,
            options,
            end,
            observer,
            &session.stop,
            &mut |item| teller.tell(&item),
            &mut |report| self.tell_report(&teller, report),
        )?;
        Ok(DONE)
    }

    fn tell_report(&self, teller: &Teller, report: &SurveyReport) {
        for entry in &report.unreadable {
            output::note(&format!("failed  {}  {}", entry.path, entry.error));
        }
        if teller.style.detail == Detail::Quiet {
            return;
        }
        if teller.style.json {
            output::json(
                &json!({"version": STATUS_VERSION, "event": "summary", "target": teller.target,
                "dry_run": true, "totals": report.totals}),
            );
        } else if report.refusal.is_none() {
            output::line(&teller.sentence(&report.totals));
        }
    }

    /// What a run is going to change, to be told when it is done. `None` if nobody wants to know. Nothing is lost if the look
    /// fails: so does the run.
    pub(super) fn plan(
        &self,
        options: &SenderOptions,
        end: FarEnd<'_>,
        style: Style,
    ) -> Result<Option<Arc<Plan>>, CliError> {
        if !self.tells_items() {
            return Ok(None);
        }
        let teller = self.teller(options, end, style)?;
        let mut items = Vec::new();
        let report = survey::run(options, end, &mut |item| items.push(item))?;
        let plan = Plan {
            teller,
            tells_items: self.itemizes(),
            tells_stats: self.stats,
            totals: report.totals,
            items: Mutex::new(items.into_iter().map(Some).collect()),
            places: HashMap::new(),
        };
        Ok(Some(Arc::new(plan.with_places())))
    }
}

/// A home for a look, which leaves nothing behind.
struct Scratch(PathBuf);

impl Scratch {
    fn new(session: &Session, options: &SenderOptions) -> Result<Scratch, CliError> {
        let key = Home::mirror_key(&options.source, &options.target.display);
        let path = session.home.mirror_dir(&format!("dry run\n{key}"));
        let made = match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(&path),
        };
        made.map_err(|error| CliError::failed(format!("cannot use {}: {error}", escaped(&path))))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes items as lines.
struct Teller {
    target: String,
    is_remote: bool,
    style: Style,
    format: Option<OutFormat>,
    source: String,
}

impl Teller {
    fn new(options: &SenderOptions, end: FarEnd<'_>, style: Style, format: Option<OutFormat>) -> Teller {
        Teller {
            target: options.target.display.clone(),
            is_remote: matches!(end, FarEnd::Target(_)),
            style,
            format,
            source: escaped(&options.source),
        }
    }

    fn line(&self, item: &Item) -> String {
        let Some(format) = &self.format else {
            return item.line(self.is_remote);
        };
        let zone = TimeZone::system();
        let time = |time: driftless_protocol::Timestamp| written(time, &zone);
        format.line(
            item,
            &Facts {
                is_remote: self.is_remote,
                source: &self.source,
                process: std::process::id(),
                now: &Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string(),
                time: &time,
            },
        )
    }

    fn tell(&self, item: &Item) {
        if self.style.detail > Detail::Quiet {
            output::line(&self.item(item));
        }
    }

    fn item(&self, item: &Item) -> String {
        if !self.style.json {
            return match self.style.name_target {
                true => format!("{}: {}", self.target, self.line(item)),
                false => self.line(item),
            };
        }
        let mut event = json!({"version": STATUS_VERSION, "event": "item", "target": self.target,
            "itemized": item.letters(self.is_remote), "path": escaped_path(&item.path)});
        let text = |bytes: &[u8]| {
            let mut shown = String::new();
            let _ = driftless_protocol::name::escape(bytes, &mut shown);
            shown
        };
        match &item.change {
            Change::Link(_, other) => event["link"] = text(other).into(),
            Change::Symlink(_, to) => event["to"] = text(to).into(),
            _ => {}
        }
        event.to_string()
    }

    fn sentence(&self, totals: &Totals) -> String {
        format!(
            "{}: dry run, nothing was changed; {} of {} would be sent, {} made, {} deleted",
            self.target,
            text::count(totals.transferred, "file", "files"),
            text::bytes(totals.transferred_bytes),
            text::count(totals.created.all(), "entry", "entries"),
            text::grouped(totals.deleted.all()),
        )
    }

    fn stats(&self, totals: &Totals, counters: Option<&SendCounters>) {
        if self.style.json {
            output::json(
                &json!({"version": STATUS_VERSION, "event": "stats", "target": self.target,
                "totals": totals, "counters": counters}),
            );
            return;
        }
        output::raw(&stats(totals, counters));
    }
}

/// A block of numbers as `rsync --stats` prints it, in plain figures.
fn stats(totals: &Totals, counters: Option<&SendCounters>) -> String {
    let mut block = String::new();
    let mut line = |name: &str, value: String| block.push_str(&format!("{name}: {value}\n"));
    line("Number of files", kinds(&totals.entries));
    line("Number of created files", kinds(&totals.created));
    line("Number of deleted files", kinds(&totals.deleted));
    line("Number of extra files kept", totals.extras_kept.to_string());
    line(
        "Number of regular files transferred",
        totals.transferred.to_string(),
    );
    line("Total file size", format!("{} bytes", totals.bytes));
    line(
        "Total transferred file size",
        format!("{} bytes", totals.transferred_bytes),
    );
    if let Some(counters) = counters {
        line("Files read", counters.files_read.to_string());
        line("Content read", format!("{} bytes", counters.content_bytes));
        line("Total bytes sent", counters.wire_bytes_sent.to_string());
        line("Total bytes received", counters.wire_bytes_received.to_string());
    }
    block
}

fn kinds(kinds: &Kinds) -> String {
    let parts: Vec<_> = [
        ("reg", kinds.files),
        ("dir", kinds.directories),
        ("link", kinds.links),
        ("dev", kinds.devices),
        ("special", kinds.specials),
    ]
    .iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| format!("{name}: {count}"))
    .collect();
    match parts.is_empty() {
        true => "0".to_owned(),
        false => format!("{} ({})", kinds.all(), parts.join(", ")),
    }
}

/// A time of modification as rsync writes it; in seconds if it is further off than calendars go.
fn written(time: driftless_protocol::Timestamp, zone: &TimeZone) -> String {
    match Timestamp::from_second(time.seconds()) {
        Ok(moment) => moment
            .to_zoned(zone.clone())
            .strftime("%Y/%m/%d-%H:%M:%S")
            .to_string(),
        Err(_) => time.seconds().to_string(),
    }
}

fn escaped_path(path: &[u8]) -> String {
    match RelPath::parse(path) {
        Ok(path) => path.to_string(),
        Err(_) => String::from_utf8_lossy(path).into_owned(),
    }
}

/// What a run is going to change. Each item is told when the target has it, the rest when the run has ended.
pub(super) struct Plan {
    teller: Teller,
    tells_items: bool,
    tells_stats: bool,
    totals: Totals,
    items: Mutex<Vec<Option<Item>>>,
    /// Where the item of a path is, by the path as senders tell it.
    places: HashMap<String, usize>,
}

impl Plan {
    fn with_places(mut self) -> Plan {
        let items = self.items.get_mut().unwrap_or_else(PoisonError::into_inner);
        // What is deleted has no op of its own path: another entry may have one there.
        let told = items.iter().enumerate().filter_map(|(at, item)| {
            let item = item.as_ref()?;
            (item.change != Change::Delete).then(|| (escaped_path(&item.path), at))
        });
        self.places = told.collect();
        self
    }

    /// Who is told of a run: the narrator, and the plan if there is one.
    pub(super) fn observer(plan: Option<&Arc<Plan>>, narrator: Arc<Narrator>) -> Arc<dyn Observer> {
        match plan {
            None => narrator,
            Some(plan) => Arc::new(ItemTeller {
                narrator,
                plan: plan.clone(),
            }),
        }
    }

    fn take(&self, path: &str) -> Option<Item> {
        let at = *self.places.get(path)?;
        self.lock().get_mut(at)?.take()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Item>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was not told yet. If not all was done, the trees are looked at once more: what still differs was not done.
    pub(super) fn conclude(
        &self,
        options: &SenderOptions,
        end: FarEnd<'_>,
        outcome: Result<&Summary, &DaemonError>,
    ) {
        let is_all_done = outcome.is_ok_and(|summary| {
            summary.in_sync && summary.failed.is_empty() && summary.counters.unreadable == 0
        });
        let mut left = HashSet::new();
        let is_empty = self.lock().iter().all(Option::is_none);
        if !is_all_done && !is_empty {
            let again = survey::run(options, end, &mut |item| {
                left.insert((item.path, item.kind, item.change == Change::Delete));
            });
            let is_known = again.is_ok_and(|report| !report.does_nothing);
            if !is_known {
                output::note(
                    "what else was changed is not known; run again with --dry-run to see what is left to do",
                );
                return;
            }
        }
        let mut done = self.totals;
        let items = std::mem::take(&mut *self.lock());
        for item in items.into_iter().flatten() {
            let is_left = left.contains(&(item.path.clone(), item.kind, item.change == Change::Delete));
            if is_left {
                done.take_back(&item);
            } else if self.tells_items {
                self.teller.tell(&item);
            }
        }
        if self.tells_stats {
            let counters = outcome.ok().map(|summary| &summary.counters);
            self.teller.stats(&done, counters);
        }
    }
}

/// Tells each planned item when it is done.
struct ItemTeller {
    narrator: Arc<Narrator>,
    plan: Arc<Plan>,
}

impl Observer for ItemTeller {
    fn phase(&self, phase: &Phase) {
        self.narrator.phase(phase);
    }

    fn counters(&self, counters: &SendCounters) {
        self.narrator.counters(counters);
    }

    fn applied(&self, verb: &'static str, path: &str) {
        self.narrator.applied(verb, path);
        if self.plan.tells_items
            && verbs::settles(verb)
            && let Some(item) = self.plan.take(path)
        {
            // Not by way of a printer, which drops lines that a slow reader leaves waiting.
            self.plan.teller.tell(&item);
        }
    }

    fn wants_all_changes(&self) -> bool {
        true
    }

    fn rescan(&self) {
        self.narrator.rescan();
    }

    fn watcher(&self, name: &str, degradations: &[String]) {
        self.narrator.watcher(name, degradations);
    }

    fn failed(&self, entries: &[FailedEntry]) {
        self.narrator.failed(entries);
    }

    fn backlog(&self, backlog: &Backlog) {
        self.narrator.backlog(backlog);
    }

    fn batch(&self, applied: u64, changes: &[AppliedChange]) {
        self.narrator.batch(applied, changes);
    }

    fn drift(&self) {
        self.narrator.drift();
    }

    fn checkpoints(&self, checkpoints: &[Checkpoint]) {
        self.narrator.checkpoints(checkpoints);
    }

    fn warning(&self, text: &str) {
        self.narrator.warning(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Parsed {
        #[command(flatten)]
        looking: LookingArgs,
    }

    fn parsed(words: &[&str]) -> Result<LookingArgs, clap::Error> {
        Parsed::try_parse_from(std::iter::once(&"driftless").chain(words)).map(|parsed| parsed.looking)
    }

    #[test]
    fn a_run_that_does_not_end_cannot_tell_items_at_the_end() {
        assert!(parsed(&["-i"]).unwrap().check_following().is_err());
        assert!(parsed(&["--stats"]).unwrap().check_following().is_err());
        assert!(parsed(&["-n", "--stats"]).unwrap().check_following().is_err());
        assert!(parsed(&["-n", "-i"]).unwrap().check_following().is_ok());
        assert!(parsed(&["--out-format=%n"]).unwrap().check_following().is_err());
        assert!(
            parsed(&["-n", "--out-format=%n"])
                .unwrap()
                .check_following()
                .is_ok()
        );
        assert!(parsed(&["--out-format=%Z"]).is_err());
        assert!(parsed(&[]).unwrap().check_following().is_ok());
    }

    #[test]
    fn stats_have_plain_figures() {
        let mut totals = Totals {
            bytes: 1_234_567,
            ..Totals::default()
        };
        totals.entries.files = 2;
        totals.entries.directories = 1;
        let block = stats(&totals, Some(&SendCounters::default()));
        assert!(block.contains("Number of files: 3 (reg: 2, dir: 1)\n"), "{block}");
        assert!(block.contains("Number of created files: 0\n"));
        assert!(block.contains("Total file size: 1234567 bytes\n"));
        assert!(block.contains("Files read: 0\n") && !stats(&totals, None).contains("Files read"));
    }
}
