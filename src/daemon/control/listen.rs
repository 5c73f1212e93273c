//! Listening to what happens in the processes of a home.
//!
//! `{"version":1,"command":"events"}`, with `"mirror"` for one mirror only, is answered by a line for each event, the first of which
//! is `listening`, until either side ends the connection. A client that reads slowly loses events and is told how many; it
//! holds up nothing.

use super::{
    CLIENT_PATIENCE, ControlError, PATIENCE, Request, connect, forget_dead, is_gone, read_line_of, sockets,
    write_all,
};
use crate::daemon::events::{self, Event, What};
use crate::daemon::home::Home;
use crate::daemon::status::{STATUS_VERSION, TargetLabel};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeSet;
use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a connection looks whether the client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Lines that wait in a client.
const LINES_MAX: usize = 1_024;

/// Hears of everything that happens in all processes of a home that run now. The channel disconnects when the last of them ended.
/// `None` if none runs.
pub fn listen(home: &Home, mirror: Option<&str>) -> Result<Option<Receiver<Event>>, ControlError> {
    let (mut ears, heard) = Ears::open();
    ears.mirror = mirror.map(str::to_owned);
    ears.listen(home)?;
    Ok((!ears.heard.is_empty()).then_some(heard))
}

/// Hears of what happens in the processes of a home, also in those that start later.
#[derive(Debug)]
pub struct Ears {
    told: Sender<Event>,
    mirror: Option<String>,
    /// The sockets that are listened to.
    heard: BTreeSet<PathBuf>,
}

impl Ears {
    /// Hears nothing before [`Ears::listen`].
    pub fn open() -> (Ears, Receiver<Event>) {
        let (told, events) = bounded(LINES_MAX);
        let ears = Ears {
            told,
            mirror: None,
            heard: BTreeSet::new(),
        };
        (ears, events)
    }

    /// Listens to the processes that run now, too.
    pub fn listen(&mut self, home: &Home) -> Result<(), ControlError> {
        let request = Request {
            version: STATUS_VERSION,
            command: "events".to_owned(),
            mirror: self.mirror.clone(),
            ..Request::default()
        };
        let all = sockets(home)?;
        self.heard.retain(|path| all.iter().any(|(_, own)| own == path));
        for (pid, path) in all {
            if self.heard.contains(&path) {
                continue;
            }
            match begin(&path, &request) {
                Ok(Some(stream)) => {
                    self.hear(stream);
                    self.heard.insert(path);
                }
                Ok(None) => forget_dead(pid, &path),
                Err(error) => tracing::warn!("the driftless process {pid} does not answer: {error}"),
            }
        }
        Ok(())
    }

    /// A thread that passes on what comes, until the process ends or nobody wants it.
    fn hear(&self, stream: UnixStream) {
        let told = self.told.clone();
        let _ = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Ok(Some(event)) = read_line_of::<Event>(&mut reader) {
                    if told.send(event).is_err() {
                        return;
                    }
                }
            });
    }
}

/// Asks one process; nothing if nobody listens on its socket.
fn begin(socket: &Path, request: &Request) -> io::Result<Option<UnixStream>> {
    let Some(mut stream) = connect(socket)? else {
        return Ok(None);
    };
    let mut text = serde_json::to_vec(request).map_err(io::Error::other)?;
    text.push(b'\n');
    write_all(&mut stream, &text, CLIENT_PATIENCE)?;
    stream.set_read_timeout(None)?;
    Ok(Some(stream))
}

/// Serves one connection of a client that listens.
pub(super) fn serve(mut stream: UnixStream, request: &Request) -> io::Result<()> {
    let listening = events::listen();
    let is_meant = |of: Option<&TargetLabel>| match (&request.mirror, of) {
        (None, _) | (_, None) => true,
        (Some(mirror), Some(of)) => {
            let names = [Some(&of.source), Some(&of.target), of.mirror.as_ref()];
            names.into_iter().flatten().any(|own| own == mirror)
        }
    };
    let mut next = Some(Event::now(None, What::Listening));
    loop {
        if let Some(event) = next.filter(|event| is_meant(event.of.as_ref())) {
            let mut line = serde_json::to_vec(&event).map_err(io::Error::other)?;
            line.push(b'\n');
            write_patiently(&mut stream, &line)?;
        }
        next = listening.next(LOOK_EVERY);
        if next.is_none() && is_gone(&stream) {
            return Ok(());
        }
    }
}

/// Writes to a client that may not read for as long as it likes: only its own events wait for it.
fn write_patiently(stream: &mut UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                if is_gone(stream) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
