//! What goes into a program and what comes out of it, without a thread for either.

use super::LOG;
use driftless_protocol::name;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::process::ChildStdin;
use std::time::Duration;

/// Bytes of what one run prints that are logged; the rest is counted.
const PRINTED_BYTES_MAX: usize = 16 << 10;
/// Bytes of a line; a longer one becomes several.
const LINE_BYTES_MAX: usize = 1 << 10;
/// What is read after the program's end, which is what a pipe can hold: something that it left behind may write for ever.
const REST_BYTES_MAX: usize = 64 << 10;

/// Both pipes of a program that runs. Dropping it closes them, also for what the program left behind.
pub(super) struct Streams<'a> {
    program: &'a str,
    stdin: Option<ChildStdin>,
    input: Vec<u8>,
    written: usize,
    output: Option<PipeReader>,
    printed: Printed,
}

impl<'a> Streams<'a> {
    /// For a program that was started with these ends of its pipes.
    pub(super) fn new(
        program: &'a str,
        stdin: Option<ChildStdin>,
        input: Vec<u8>,
        output: PipeReader,
    ) -> io::Result<Streams<'a>> {
        if let Some(stdin) = &stdin {
            ioctl_fionbio(stdin, true)?;
        }
        ioctl_fionbio(&output, true)?;
        Ok(Streams {
            program,
            stdin,
            input,
            written: 0,
            output: Some(output),
            printed: Printed::default(),
        })
    }

    /// Waits so long at most until the program reads or prints something, and hands on what it can.
    pub(super) fn turn(&mut self, patience: Duration) {
        let mut waited = Vec::with_capacity(2);
        waited.extend(self.stdin.iter().map(|stdin| PollFd::new(stdin, PollFlags::OUT)));
        waited.extend(
            self.output
                .iter()
                .map(|output| PollFd::new(output, PollFlags::IN)),
        );
        match Timespec::try_from(patience) {
            // An interrupted wait is a short one.
            Ok(patience) if !waited.is_empty() => drop(poll(&mut waited, Some(&patience))),
            _ => std::thread::sleep(patience),
        }
        drop(waited);
        self.write();
        self.read(LINE_BYTES_MAX * 4);
    }

    /// The program has ended: takes what it still had printed.
    pub(super) fn finish(mut self) {
        self.read(REST_BYTES_MAX);
        let printed = std::mem::take(&mut self.printed);
        for line in printed.finish() {
            self.log(&line);
        }
    }

    fn write(&mut self) {
        let Some(stdin) = &mut self.stdin else {
            return;
        };
        match stdin.write(&self.input[self.written..]) {
            Ok(bytes) => self.written += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            // It does not want to know the rest.
            Err(_) => self.written = self.input.len(),
        }
        if self.written == self.input.len() {
            (self.stdin, self.input) = (None, Vec::new());
            self.written = 0;
        }
    }

    fn read(&mut self, mut most: usize) {
        let mut buffer = [0; LINE_BYTES_MAX];
        while let Some(output) = self.output.as_mut().filter(|_| most > 0) {
            match output.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(bytes) => {
                    most = most.saturating_sub(bytes);
                    for line in self.printed.take(&buffer[..bytes]) {
                        self.log(&line);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.output = None,
            }
        }
    }

    fn log(&self, line: &str) {
        tracing::info!(target: LOG, "{}: {line}", self.program);
    }
}

/// What was printed, as lines for a log: escaped, and not more than a log should take.
#[derive(Default)]
struct Printed {
    line: Vec<u8>,
    taken: usize,
    left_out: u64,
}

impl Printed {
    /// The lines that these bytes complete.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let kept = bytes.len().min(PRINTED_BYTES_MAX - self.taken);
        self.taken += kept;
        self.left_out += (bytes.len() - kept) as u64;
        let mut lines = Vec::new();
        for &byte in &bytes[..kept] {
            let is_end = byte == b'\n';
            if !is_end {
                self.line.push(byte);
            }
            if is_end || self.line.len() == LINE_BYTES_MAX {
                lines.extend(self.end_line());
            }
        }
        lines
    }

    /// What is left, and how much was left out.
    fn finish(mut self) -> Vec<String> {
        let mut lines: Vec<_> = self.end_line().into_iter().collect();
        if self.left_out > 0 {
            lines.push(format!(
                "({} more bytes that it printed are not logged)",
                self.left_out
            ));
        }
        lines
    }

    /// Lines with nothing in them are left out.
    fn end_line(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = name::escape(line, &mut text);
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_becomes_lines_that_a_log_can_take() {
        let mut printed = Printed::default();
        assert_eq!(printed.take(b"one\r\n\n\x1b[2Jtwo\nth"), ["one", "\\x1b[2Jtwo"]);
        assert_eq!(printed.take(b"ree\xff\n"), ["three\\xff"]);
        assert!(printed.take(b"last").is_empty());
        assert_eq!(printed.finish(), ["last"]);
    }

    #[test]
    fn what_is_printed_without_end_is_counted_and_not_kept() {
        let mut printed = Printed::default();
        let mut logged = 0;
        for _ in 0..1_000 {
            let lines = printed.take(&[b'x'; 1_000]);
            assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
            logged += lines.iter().map(String::len).sum::<usize>();
        }
        let rest = printed.finish();
        logged += rest[..rest.len() - 1].iter().map(String::len).sum::<usize>();
        assert_eq!(logged, PRINTED_BYTES_MAX);
        let left_out = 1_000_000 - PRINTED_BYTES_MAX;
        assert_eq!(
            rest.last().unwrap(),
            &format!("({left_out} more bytes that it printed are not logged)")
        );
    }
}
