//! `driftless import-lsyncd`: a configuration of lsyncd as one of ours.
//!
//! What is written passes `driftless config check`: it is checked here before anything is written, and a mirror with
//! a fault becomes a comment.

use super::config::{check_text, keys_of_mirrors_and_modules};
use super::text::escaped;
use super::{CliError, DONE, SOME_FAILED, output};
use crate::daemon::status::STATUS_VERSION;
use crate::import::{self, Failure, Import, SOURCE_BYTES_MAX, Source, Vocabulary, Written};
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hidden flag of the process in which a configuration is run.
const EVALUATE: &str = "--evaluate";

/// Make a configuration of one of lsyncd's, and say what became of each key
///
/// FILE is Lua, and is run; but where it can neither read, write nor start anything, nor take long. Mirrors that would do
/// something else to their targets than lsyncd did are written as comments; then the exit status is 3.
#[derive(Debug, Args)]
pub(super) struct ImportLsyncdArgs {
    /// The configuration of lsyncd
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the configuration to FILE, which must not exist, and the report to standard output [default: the configuration to
    /// standard output, and the report to standard error]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the report as JSON, to standard output, with the configuration in it
    #[arg(long)]
    json: bool,
    #[arg(long, hide = true)]
    evaluate: bool,
}

impl ImportLsyncdArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let path = escaped(&self.file);
        if self.evaluate {
            import::serve(&path).map_err(|error| CliError::failed(format!("cannot answer: {error}")))?;
            return Ok(DONE);
        }
        let text = read(&self.file).map_err(|error| {
            CliError::usage(format!(
                "cannot read {path}, the configuration of lsyncd: {error}"
            ))
        })?;
        let source = Source { path, text };
        // By this name it is found even if it was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("import-lsyncd")
            .arg(EVALUATE)
            .arg("--")
            .arg(&self.file);
        let refused = |failure: Failure| CliError::usage(located(&source, &failure));
        let evaluation = import::evaluate(command, &source).map_err(refused)?;
        let mut import = import::translate(&evaluation, &source, &vocabulary()).map_err(refused)?;
        let written = checked(&mut import, &source)?;
        self.tell(&import, &source, &written)?;
        let is_whole = import.mirrors.iter().all(|mirror| mirror.stops.is_empty());
        Ok(if is_whole { DONE } else { SOME_FAILED })
    }

    fn tell(&self, import: &Import, source: &Source, written: &Written) -> Result<(), CliError> {
        if let Some(path) = &self.output {
            create(path, &written.text).map_err(|error| {
                let remedy = match error.kind() {
                    io::ErrorKind::AlreadyExists => " (nothing is replaced: remove it, or give another name)",
                    _ => "",
                };
                CliError::failed(format!("cannot write {}: {error}{remedy}", escaped(path)))
            })?;
        }
        if self.json {
            let mut value = import::json(import, source, written);
            value["version"] = json!(STATUS_VERSION);
            output::json(&value);
            return Ok(());
        }
        let report = import::text(import, source);
        if self.output.is_some() {
            output::raw(&report);
        } else {
            output::raw(&written.text);
            output::plain_note(&report);
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = Vec::new();
    file.take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > SOURCE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it has more than {SOURCE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

/// A new file. It says which trees there are, so it is for its owner.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a configuration is worse than none.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn located(source: &Source, failure: &Failure) -> String {
    let line = failure.line.map_or(String::new(), |line| format!(":{line}"));
    // A configuration may word its errors as it likes.
    format!(
        "{}{line}: cannot import this: {}",
        source.path,
        escaped(&failure.text)
    )
}

fn vocabulary() -> Vocabulary {
    let (mirror, module) = keys_of_mirrors_and_modules();
    Vocabulary {
        mirror: mirror.into_iter().collect(),
        module: module.into_iter().collect(),
    }
}

/// The configuration, after everything in it that is at fault became a comment.
fn checked(import: &mut Import, source: &Source) -> Result<Written, CliError> {
    const NAME: &str = "driftless.toml";
    loop {
        let written = import::toml(import, source);
        let Err(faults) = check_text(&written.text, NAME) else {
            return Ok(written);
        };
        let mut is_settled = true;
        for fault in &faults {
            let rest = fault.0.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(':'));
            let Some((line, text)) = rest.and_then(|rest| rest.split_once(": ")) else {
                continue;
            };
            let at = line.parse::<usize>().ok();
            let mirror = at.and_then(|line| written.lines.iter().position(|lines| lines.contains(&line)));
            if let Some(mirror) = mirror.and_then(|at| import.mirrors.get_mut(at)) {
                mirror.stops.push(without_places(text, NAME));
                is_settled = false;
            }
        }
        if is_settled {
            let faults: Vec<_> = faults.iter().map(|fault| fault.0.as_str()).collect();
            return Err(CliError::failed(format!(
                "the result would not be correct (this is a defect, please report it): {}",
                faults.join("; ")
            )));
        }
    }
}

/// A fault without the places in the file that it speaks of, which is not there yet.
fn without_places(text: &str, name: &str) -> String {
    let place = format!(" ({name}:");
    let mut parts = text.split(&place);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once(')').map_or(part, |(_, rest)| rest)
    })
}
