//! Where the log goes, and in which form: to standard error, and beside that to a file and to syslog.
//!
//! It begins as the command line says. A daemon then takes up what its configuration says, and again with every reload: what was
//! said on the command line counts more. What is new is made ready first, so that a log that cannot be written changes nothing.

mod file;
mod repeats;
mod syslog;

use super::{CliError, output};
use crate::daemon::hooks;
use clap::{ArgAction, Args, ValueEnum};
use file::LogFile;
use repeats::Repeats;
use serde_json::{Map, Value};
use std::fmt::{self, Debug};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use syslog::{Facility, Syslog};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::{Context, Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// What changes are logged under, a line each. They were asked for.
const AUDIT: &str = "driftless::audit=info";

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// An object of JSON for each line.
    Json,
    /// The level as journald wants it before each line, and no time.
    Journal,
}

/// Options of every command, and keys of a daemon.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct LoggingArgs {
    /// Say more; twice for debugging
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// The form of the log on standard error and in --log-file [default: on standard error journal if it leads there, else text]
    #[arg(long, global = true, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Append the log to this file, too. It is made anew when it was moved away, as logrotate does
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Send the log to syslog, too, under this facility: `daemon` without one, `user`, or `local0` to `local7`
    #[arg(long, global = true, value_name = "FACILITY", value_enum, num_args = 0..=1, require_equals = true,
        default_missing_value = "daemon", hide_possible_values = true)]
    syslog: Option<Facility>,
    /// What the program is called in syslog [default: driftless]
    #[arg(long, global = true, value_name = "NAME", requires = "syslog")]
    syslog_name: Option<String>,
    /// Where syslog listens [default: /dev/log]
    #[arg(long, global = true, value_name = "PATH", requires = "syslog")]
    syslog_socket: Option<PathBuf>,
}

impl LoggingArgs {
    /// These, and for what was not said those of `settings`.
    fn or(&self, settings: &LoggingArgs) -> LoggingArgs {
        let (own, other) = (self.clone(), settings.clone());
        LoggingArgs {
            verbose: if own.verbose > 0 {
                own.verbose
            } else {
                other.verbose
            },
            log_format: own.log_format.or(other.log_format),
            log_file: own.log_file.or(other.log_file),
            syslog: own.syslog.or(other.syslog),
            syslog_name: own.syslog_name.or(other.syslog_name),
            syslog_socket: own.syslog_socket.or(other.syslog_socket),
        }
    }

    /// What is logged if the environment says nothing.
    fn levels(&self, is_daemon: bool) -> String {
        let ours = match self.verbose {
            0 if is_daemon => "warn,driftless=info",
            0 => "warn",
            1 => "warn,driftless=info",
            2 => "info,driftless=debug",
            _ => "debug,driftless=trace",
        };
        format!("{ours},{AUDIT},{}=info", hooks::LOG)
    }
}

/// Everything that lines are written to.
type Outputs = Vec<Box<dyn Layer<Registry> + Send + Sync>>;
type Written = Layered<reload::Layer<Outputs, Registry>, Registry>;

/// The log of this process.
struct Log {
    said: LoggingArgs,
    is_daemon: bool,
    outputs: reload::Handle<Outputs, Registry>,
    filter: reload::Handle<EnvFilter, Written>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts logging as the command line says.
pub(super) fn start(args: &LoggingArgs, is_daemon: bool) -> Result<(), CliError> {
    let (outputs, outputs_handle) = reload::Layer::new(outputs(args)?);
    let (filter, filter_handle) = reload::Layer::new(filter(&args.levels(is_daemon)));
    // What is repeated comes last: it is asked first, and tells of repeats by lines of its own.
    let all = tracing_subscriber::registry()
        .with(outputs)
        .with(filter)
        .with(Repeats::default());
    // Fails only if there is a logger already, which then is the one to use.
    if all.try_init().is_ok() {
        let _ = LOG.set(Log {
            said: args.clone(),
            is_daemon,
            outputs: outputs_handle,
            filter: filter_handle,
        });
    }
    Ok(())
}

/// Another log, ready to be written: its file is open.
pub(super) struct Prepared(Option<(&'static Log, Outputs, EnvFilter)>);

/// Makes the log ready that the command line and these settings say. Its file is opened, also if it is the one that is written
/// already: it may have been moved away.
pub(super) fn prepare(settings: &LoggingArgs) -> Result<Prepared, CliError> {
    let Some(log) = LOG.get() else {
        return Ok(Prepared(None));
    };
    let args = log.said.or(settings);
    Ok(Prepared(Some((
        log,
        outputs(&args)?,
        filter(&args.levels(log.is_daemon)),
    ))))
}

impl Prepared {
    /// From now on lines go there.
    pub(super) fn take_up(self) {
        if let Some((log, outputs, filter)) = self.0 {
            // Fails only when the process is about to end.
            let _ = log.outputs.reload(outputs);
            let _ = log.filter.reload(filter);
        }
    }
}

/// What is logged: as the environment says, or else as we do.
fn filter(ours: &str) -> EnvFilter {
    match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).unwrap_or_else(|error| {
            output::note(&format!("RUST_LOG is ignored: {error}"));
            EnvFilter::new(ours)
        }),
        _ => EnvFilter::new(ours),
    }
}

/// Standard error, and what was wished beside it.
fn outputs(args: &LoggingArgs) -> Result<Outputs, CliError> {
    let mut outputs = vec![to_standard_error(args.log_format)];
    if let Some(path) = &args.log_file {
        let file = LogFile::open(path).map_err(|error| {
            CliError::failed(format!("cannot write the log to {}: {error}", path.display()))
        })?;
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || file.clone())
            .with_target(false)
            .with_ansi(false);
        outputs.push(match args.log_format {
            Some(LogFormat::Json) => lines.event_format(Json).boxed(),
            _ => lines.boxed(),
        });
    }
    if let Some(facility) = args.syslog {
        let path = args.syslog_socket.clone();
        let path = path.unwrap_or_else(|| syslog::SOCKET.into());
        let name = args.syslog_name.as_deref().unwrap_or("driftless");
        let syslog = Syslog::open(&path, facility, name).map_err(|error| {
            CliError::failed(format!("cannot log to syslog at {}: {error}", path.display()))
        })?;
        outputs.push(ToSyslog(syslog).boxed());
    }
    Ok(outputs)
}

fn to_standard_error(format: Option<LogFormat>) -> Box<dyn Layer<Registry> + Send + Sync> {
    let format = format.unwrap_or_else(|| match leads_to_journal() {
        true => LogFormat::Journal,
        false => LogFormat::Text,
    });
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Quiet(std::io::stderr()))
        .with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Json => lines.event_format(Json).boxed(),
        LogFormat::Journal => lines.with_ansi(false).event_format(Journal).boxed(),
    }
}

/// A layer that sends each line to syslog.
struct ToSyslog(Syslog);

impl<S: Subscriber> Layer<S> for ToSyslog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (severity, text) = line_of(event);
        self.0.send(severity, &text);
    }
}

/// Whether standard error is the stream that the service manager connected with the journal.
fn leads_to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let found = std::fs::metadata("/proc/self/fd/2");
    found.is_ok_and(|found| stream == format!("{}:{}", found.dev(), found.ino()))
}

/// Standard error that may be closed.
struct Quiet(std::io::Stderr);

impl Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if !output::is_muted() {
            let _ = self.0.write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// The fields of a line.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn of(event: &Event<'_>) -> Fields {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0
            .insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let mut line = Map::new();
        line.insert("at".to_owned(), jiff::Timestamp::now().to_string().into());
        line.insert("level".to_owned(), meta.level().as_str().to_lowercase().into());
        line.insert("from".to_owned(), meta.target().into());
        for (name, value) in Fields::of(event).0 {
            line.entry(name).or_insert(value);
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (priority, text) = line_of(event);
        // A line of the journal ends with the first line end.
        writeln!(writer, "<{priority}>{}", text.replace('\n', " "))
    }
}

/// The severity of an event, as syslog counts it, and its line: the message, and its fields behind it.
fn line_of(event: &Event<'_>) -> (u8, String) {
    let severity = match *event.metadata().level() {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let mut fields = Fields::of(event).0;
    let message = fields.remove("message");
    let mut text = message
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    for (name, value) in fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!(" {name}={value}"));
    }
    (severity, text)
}
