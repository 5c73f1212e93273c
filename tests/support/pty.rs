//! A terminal of our own, and what a person in front of it would see.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn some(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

pub struct Pty {
    ours: File,
    theirs: File,
    parser: vt100::Parser,
    seen: Vec<u8>,
}

impl Pty {
    pub fn open(columns: u16, rows: u16) -> Pty {
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        // Not our controlling terminal: a test program is no session leader.
        let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let mut pty = Pty {
            ours: ours.into(),
            theirs,
            parser: vt100::Parser::new(some(rows), some(columns), 0),
            seen: Vec::new(),
        };
        pty.resize(columns, rows);
        pty
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.theirs, size).unwrap();
        self.parser.screen_mut().set_size(some(rows), some(columns));
    }

    /// The modes of the terminal: whether it echoes, gathers lines, and so on.
    pub fn modes(&self) -> String {
        let modes = tcgetattr(&self.theirs).unwrap();
        format!(
            "{:?} {:?} {:?}",
            modes.input_modes, modes.output_modes, modes.local_modes
        )
    }

    /// Starts a program with this terminal as its own, as a login does.
    pub fn spawn(&self, command: &Command) -> Child {
        let stdio = || Stdio::from(self.theirs.try_clone().unwrap());
        let mut own = Command::new("setsid");
        own.args(["--ctty", "--wait"]).arg(command.get_program());
        own.args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => own.env(key, value),
                None => own.env_remove(key),
            };
        }
        own.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        own.stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap()
    }

    /// Starts a program on this terminal that is not told when it is gone, like one in the background of a session.
    #[allow(dead_code, reason = "not every test that has a terminal needs it")]
    pub fn spawn_beside(&self, mut command: Command) -> Child {
        let stdio = || Stdio::from(self.theirs.try_clone().unwrap());
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        command.spawn().unwrap()
    }

    pub fn write(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    /// What is on the screen.
    pub fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    /// Takes what was written, waiting for it for at most so long.
    fn pump(&mut self, patience: Duration) {
        let mut waiting = [PollFd::new(&self.ours, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: patience.subsec_nanos().into(),
        };
        if poll(&mut waiting, Some(&patience)).unwrap_or(0) == 0 {
            return;
        }
        let mut buffer = [0; 4096];
        let length = self.ours.read(&mut buffer).unwrap();
        self.parser.process(&buffer[..length]);
        self.seen.extend_from_slice(&buffer[..length]);
    }

    /// Waits until the screen is like this.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_it: impl Fn(&str) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_it(&self.screen().contents()) {
            assert!(
                Instant::now() < until,
                "still not: {what}\n{}",
                self.screen().contents()
            );
            self.pump(Duration::from_millis(100));
        }
    }

    /// Waits until a program has ended, and takes all that it wrote.
    #[track_caller]
    pub fn end(&mut self, mut child: Child) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = child.try_wait().unwrap();
            self.pump(Duration::from_millis(20));
            if let Some(status) = ended {
                let mut before = usize::MAX;
                while before != self.seen.len() {
                    before = self.seen.len();
                    self.pump(Duration::ZERO);
                }
                return status;
            }
            if Instant::now() >= until {
                let _ = child.kill();
                panic!("it does not end:\n{}", self.screen().contents());
            }
        }
    }

    /// Everything that was written, with all control sequences.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}
