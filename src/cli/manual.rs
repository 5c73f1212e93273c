//! What is told about this program elsewhere: completions for shells, and manual pages.
//!
//! Both are made by the program itself, of the definition that parses its command line. A build script or a tool beside it
//! would have to compile that definition again, and only whoever builds would have the outcome; so everyone who has the
//! program has the pages that fit it, and a package only runs what it packs.

use super::logging::LoggingArgs;
use super::{Cli, CliError, DONE, Shown, output};
use clap::builder::PossibleValue;
use clap::{Arg, Args, Command, CommandFactory, Subcommand};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The section of programs.
const SECTION: &str = "1";

/// Files of root, as the page of the program names them.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/driftless/driftless.toml",
        "the configuration of driftless daemon",
    ),
    (
        "/etc/driftless/mirrors.d/*.toml",
        "more mirrors and modules of it",
    ),
    ("/etc/driftless/identity/", "the key of this machine"),
    ("/etc/driftless/peers.toml", "who is trusted, for what"),
    ("/var/lib/driftless/", "catalogs, state and pending invites"),
    ("/run/driftless/", "control sockets of the processes that run"),
];

/// Print what a shell needs to complete commands and options
///
/// For bash, as one user: driftless completions bash > ~/.local/share/bash-completion/completions/driftless
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Which shell: bash, zsh, fish, elvish or powershell
    #[arg(hide_possible_values = true)]
    shell: Shell,
}

/// Write the manual pages: one of the program and one of each command
///
/// With SOURCE_DATE_EPOCH in the environment, that is their date.
#[derive(Debug, Args)]
pub(super) struct ManPagesArgs {
    /// Where to; made if it is missing
    dir: PathBuf,
}

impl CompletionsArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        output::raw(&completions(self.shell));
        Ok(DONE)
    }
}

impl ManPagesArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let failed = |path: &Path, cause: io::Error| {
            CliError::failed(format!(
                "cannot write manual pages to {}: {cause}",
                path.display()
            ))
        };
        fs::create_dir_all(&self.dir).map_err(|cause| failed(&self.dir, cause))?;
        let date = date(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?;
        for (name, page) in pages(&date) {
            let path = self.dir.join(name);
            fs::write(&path, page).map_err(|cause| failed(&path, cause))?;
        }
        Ok(DONE)
    }
}

fn completions(shell: Shell) -> String {
    let whole = Cli::command();
    let name = whole.get_name().to_owned();
    // Commands that are hidden would be offered all the same.
    let mut command = Command::new("driftless").version(env!("CARGO_PKG_VERSION"));
    command = Shown::augment_subcommands(LoggingArgs::augment_args(command));
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The day of a moment in seconds since 1970, as reproducible builds give it; without one, today.
fn date(epoch: Option<&str>) -> Result<String, CliError> {
    let day = match epoch {
        Some(text) => {
            let moment = text
                .parse()
                .ok()
                .and_then(|seconds| Timestamp::from_second(seconds).ok());
            let moment = moment.ok_or_else(|| {
                CliError::usage(format!(
                    "SOURCE_DATE_EPOCH is {text:?}, which is no number of seconds since 1970 (set it right, or not at all)"
                ))
            })?;
            moment.to_zoned(TimeZone::UTC)
        }
        None => Zoned::now(),
    };
    Ok(day.date().to_string())
}

/// All pages, each with the name of its file.
fn pages(date: &str) -> Vec<(String, Vec<u8>)> {
    let mut program = with_values_in_help(Cli::command()).disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add_pages(&program, date, true, &mut pages);
    pages
}

/// With the values that options take in their help: as a list of their own, troff complains of the space around it.
fn with_values_in_help(command: Command) -> Command {
    let told = |arg: Arg| {
        let values = arg.get_possible_values();
        let values: Vec<_> = values
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(PossibleValue::get_name)
            .collect();
        if values.is_empty() || arg.is_hide_possible_values_set() || !arg.get_action().takes_values() {
            return arg;
        }
        let help = arg.get_long_help().or_else(|| arg.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let help = format!("{help} [possible values: {}]", values.join(", "));
        arg.long_help(help).hide_possible_values(true)
    };
    command.mut_args(told).mut_subcommands(with_values_in_help)
}

fn add_pages(command: &Command, date: &str, is_program: bool, pages: &mut Vec<(String, Vec<u8>)>) {
    let source = format!("driftless {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .section(SECTION)
        .date(date)
        .source(source)
        .manual("driftless");
    let mut page = Vec::new();
    // Writing into memory cannot fail.
    let _ = render(&man, command, is_program, &mut page);
    pages.push((man.get_filename(), page));
    for below in shown(command) {
        add_pages(below, date, false, pages);
    }
}

/// Subcommands that are no secret.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn render(man: &Man, command: &Command, is_program: bool, page: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    let usage = command.clone().render_usage().to_string();
    synopsis.text([bold(usage.trim_start_matches("Usage:").trim())]);
    synopsis.to_writer(page)?;
    man.render_description_section(page)?;
    let help = command
        .get_after_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (introduction, sections) = sections(&help);
    let mut more = Roff::new();
    for line in introduction {
        more.control("PP", []);
        more.text([roman(line)]);
    }
    more.to_writer(page)?;
    man.render_options_section(page)?;
    let mut more = Roff::new();
    if shown(command).next().is_some() {
        more.control("SH", ["COMMANDS"]);
        for below in shown(command) {
            let name = below.get_display_name().unwrap_or(below.get_name());
            let about = below.get_about().map(ToString::to_string).unwrap_or_default();
            item(&mut more, &format!("{name}({SECTION})"), &about);
        }
    }
    for (heading, items) in &sections {
        more.control("SH", [heading.as_str()]);
        items.iter().for_each(|(tag, text)| item(&mut more, tag, text));
    }
    if is_program {
        more.control("SH", ["FILES"]);
        FILES
            .iter()
            .for_each(|(path, meaning)| item(&mut more, path, meaning));
    } else {
        more.control("SH", ["SEE ALSO"]);
        more.text([bold("driftless"), roman(format!("({SECTION})"))]);
    }
    more.to_writer(page)
}

fn item(roff: &mut Roff, tag: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(tag)]);
    roff.text([roman(text)]);
}

/// A heading and what is said below it: words, and what each of them means.
type Section = (String, Vec<(String, String)>);

/// Takes apart what stands below the help: plain lines, and sections whose lines are indented, as in
/// `Exit status:\n  0  done`. What continues a line is indented more.
fn sections(help: &str) -> (Vec<&str>, Vec<Section>) {
    let (mut introduction, mut sections) = (Vec::new(), Vec::<Section>::new());
    for line in help.lines().filter(|line| !line.trim().is_empty()) {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        match sections.last_mut() {
            _ if depth == 0 && text.ends_with(':') => {
                sections.push((text.trim_end_matches(':').to_uppercase(), Vec::new()));
            }
            Some((_, items)) if depth > 2 && !items.is_empty() => {
                if let Some((_, meaning)) = items.last_mut() {
                    meaning.push(' ');
                    meaning.push_str(text);
                }
            }
            Some((_, items)) if depth > 0 => {
                let (tag, meaning) = text.split_once("  ").unwrap_or((text, ""));
                items.push((tag.to_owned(), meaning.trim_start().to_owned()));
            }
            _ => introduction.push(text),
        }
    }
    (introduction, sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    fn program() -> Command {
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        program
    }

    /// Every command that is no secret, the program itself among them.
    fn commands(program: &Command) -> Vec<&Command> {
        let mut found = vec![program];
        let mut at = 0;
        while at < found.len() {
            found.extend(shown(found[at]));
            at += 1;
        }
        found
    }

    /// The flags of a command that are shown, as they are typed.
    fn flags(command: &Command) -> Vec<String> {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        shown
            .flat_map(|arg| {
                let long = arg.get_long().map(|long| format!("--{long}"));
                long.into_iter()
                    .chain(arg.get_short().map(|short| format!("-{short}")))
            })
            .collect()
    }

    #[test]
    fn every_command_has_a_page_with_all_its_options() {
        let program = program();
        let pages = pages("2026-01-31");
        let commands = commands(&program);
        assert!(commands.len() > 20, "{}", commands.len());
        assert_eq!(pages.len(), commands.len());
        for command in commands {
            let name = command.get_display_name().unwrap_or(command.get_name());
            let (_, page) = pages
                .iter()
                .find(|(file, _)| *file == format!("{name}.1"))
                .unwrap_or_else(|| panic!("there is no page of {name}"));
            // Hyphens are escaped, so that they can be copied.
            let page = String::from_utf8(page.clone())
                .unwrap()
                .replace("\\-", "-")
                .replace("\\fR", "");
            for flag in flags(command) {
                assert!(
                    page.contains(&format!("\\fB{flag}")),
                    "{name} has no {flag}:\n{page}"
                );
            }
            for below in shown(command) {
                let wanted = format!("{}(1)", below.get_display_name().unwrap());
                assert!(page.contains(&wanted), "{name} has no {wanted}:\n{page}");
            }
            assert!(
                page.contains("2026-01-31") && page.contains(".SH DESCRIPTION"),
                "{page}"
            );
        }
    }

    #[test]
    fn every_shell_completes_all_commands_and_options() {
        let program = program();
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for command in commands(&program) {
                assert!(
                    script.contains(command.get_name()),
                    "{shell}: no {}",
                    command.get_name()
                );
                for flag in flags(command) {
                    // fish has the names of options without hyphens.
                    let wanted = match shell {
                        Shell::Fish if flag.starts_with("--") => format!("-l {}", &flag[2..]),
                        Shell::Fish => format!("-s {}", &flag[1..]),
                        _ => flag,
                    };
                    assert!(
                        script.contains(&wanted),
                        "{shell}: no {wanted} of {}",
                        command.get_name()
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_below_the_help_becomes_sections() {
        let help = "A TARGET is this.\n\nExit status:\n  0  done\n  3  some\n     failed\n\nEnvironment:\n  HOME  where";
        let (introduction, sections) = sections(help);
        assert_eq!(introduction, ["A TARGET is this."]);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            sections,
            [
                (
                    "EXIT STATUS".to_owned(),
                    vec![pair("0", "done"), pair("3", "some failed")]
                ),
                ("ENVIRONMENT".to_owned(), vec![pair("HOME", "where")]),
            ]
        );
        assert!(super::sections("").1.is_empty());
    }

    #[test]
    fn the_page_of_the_program_says_how_it_ends_and_where_things_are() {
        let (file, page) = pages("2026-01-31").remove(0);
        let page = String::from_utf8(page).unwrap();
        assert_eq!(file, "driftless.1");
        for heading in ["EXIT STATUS", "ENVIRONMENT", "FILES", "COMMANDS"] {
            assert!(
                page.contains(&format!(".SH \"{heading}\"")) || page.contains(&format!(".SH {heading}")),
                "{page}"
            );
        }
        assert!(
            page.contains("DRIFTLESS_HOME") && page.contains("/etc/driftless/driftless.toml"),
            "{page}"
        );
    }

    #[test]
    fn a_page_has_a_date() {
        assert_eq!(date(Some("0")).unwrap(), "1970-01-01");
        assert_eq!(date(Some("1767225600")).unwrap(), "2026-01-01");
        assert!(
            matches!(date(Some("today")), Err(CliError::Usage(text)) if text.contains("SOURCE_DATE_EPOCH"))
        );
        assert_eq!(date(None).unwrap().len(), 10);
    }
}
