//! Looking up hosts for a process that may open no sockets any more, nor read the files that say whom to ask.
//!
//! It starts a [`serve_hosts`] in a process of its own first, which is told names and answers addresses, and has no other input. A
//! request is a line with the host, a space and the port; the answer a line that begins with `+` and has the addresses, or with
//! `-` and says why there are none.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The longest line of either side.
const LINE_BYTES_MAX: u64 = 4_096;

/// The helper of this process.
static HELPER: OnceLock<Mutex<Helper>> = OnceLock::new();

struct Helper {
    child: Child,
    answers: BufReader<ChildStdout>,
}

/// Hosts that this process looks up are from now on looked up by a program that runs [`serve_hosts`] on its standard input and output. It
/// ends with this process. To be called once, before there is any thread; later calls change nothing.
pub fn delegate_hosts(program: &mut Command) -> io::Result<()> {
    if HELPER.get().is_some() {
        return Ok(());
    }
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/")
        // A Ctrl-C is for who answers it.
        .process_group(0)
        .spawn()?;
    let answers = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let answers = BufReader::new(answers);
    // Lost only to a call at the same time, and then it ends at once: nobody holds its input any more.
    let _ = HELPER.set(Mutex::new(Helper { child, answers }));
    Ok(())
}

/// The addresses of a host. Blocks for as long as the system's resolver does.
pub fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let Some(helper) = HELPER.get() else {
        return (host, port).to_socket_addrs().map(Iterator::collect);
    };
    let mut helper = helper.lock().unwrap_or_else(PoisonError::into_inner);
    let Helper { child, answers } = &mut *helper;
    let input = child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    ask(host, port, input, answers)
}

fn ask(
    host: &str,
    port: u16,
    input: &mut impl Write,
    answers: &mut impl BufRead,
) -> io::Result<Vec<SocketAddr>> {
    if host.contains(char::is_whitespace) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    writeln!(input, "{host} {port}")?;
    input.flush()?;
    let ended = || io::Error::other("the process that looks hosts up has ended; start again");
    let answer = line(answers)?.ok_or_else(ended)?;
    match answer.split_at_checked(1) {
        Some(("+", addresses)) => addresses
            .split_whitespace()
            .map(|address| address.parse().map_err(io::Error::other))
            .collect(),
        Some(("-", why)) => Err(io::Error::other(why.to_owned())),
        _ => Err(ended()),
    }
}

/// Answers until the input ends. Anything that is no request ends it as well.
pub fn serve_hosts(input: impl io::Read, mut output: impl Write) -> io::Result<()> {
    let mut input = BufReader::new(input);
    while let Some(request) = line(&mut input)? {
        let (host, port) = request.split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
        let port: u16 = port.parse().map_err(io::Error::other)?;
        match (host, port).to_socket_addrs() {
            Ok(found) => {
                // As many as a line holds; nobody tries more.
                let found: Vec<_> = found.take(32).map(|address| address.to_string()).collect();
                writeln!(output, "+{}", found.join(" "))?;
            }
            Err(error) => writeln!(output, "-{}", error.to_string().replace('\n', " "))?,
        }
        output.flush()?;
    }
    Ok(())
}

/// The next line without its end; none at the end of all.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut text = String::new();
    let mut limited = io::Read::take(&mut *from, LINE_BYTES_MAX);
    limited.read_line(&mut text)?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(Some(line.to_owned())),
        None if text.is_empty() => Ok(None),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut asked = Vec::new();
        // The request alone first: there is no answer yet.
        ask(host, port, &mut asked, &mut io::empty()).unwrap_err();
        let mut said = Vec::new();
        serve_hosts(&asked[..], &mut said).unwrap();
        ask(host, port, &mut io::sink(), &mut &said[..])
    }

    #[test]
    fn what_is_asked_is_answered() {
        assert_eq!(
            answered("127.0.0.1", 80).unwrap(),
            ["127.0.0.1:80".parse().unwrap()]
        );
        assert!(
            answered("localhost", 1)
                .unwrap()
                .iter()
                .all(|found| found.ip().is_loopback())
        );
        let error = answered("no-such-host.invalid", 1).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert_eq!(
            ask("a b", 1, &mut io::sink(), &mut io::empty())
                .unwrap_err()
                .kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn what_is_no_request_ends_it() {
        for bytes in [
            &b"localhost\n"[..],
            b"localhost x\n",
            b"localhost 1",
            b"\xff 1\n",
            &[b'a'; 5_000],
        ] {
            let mut said = Vec::new();
            serve_hosts(bytes, &mut said).unwrap_err();
            assert_eq!(said, b"");
        }
    }
}
