//! Names of users and groups for a process that has given up reading the databases of accounts.
//!
//! To find a name, the C library loads modules, reads files all over the system, or connects to a server: nothing that
//! a confined process may do. So it starts a [`serve_accounts`] in a process of its own first, which is told names and answers
//! numbers, and has no other input.
//!
//! A request is a byte for the kind (`u` or `g`), one for the length of the name, and the name; the answer is a byte
//! (`+` found, `-` no such name, `!` failed) and, in network order, the number or the errno.

use super::accounts::find_id;
use driftless_protocol::{OwnerKind, OwnerName};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The helper of this process.
static HELPER: OnceLock<Mutex<Child>> = OnceLock::new();

/// Names that this process asks for are from now on looked up by a program that runs [`serve_accounts`] on its standard input and
/// output. It ends with this process. To be called once, before there is any thread; later calls change nothing.
pub fn delegate_accounts(program: &mut Command) -> io::Result<()> {
    if HELPER.get().is_some() {
        return Ok(());
    }
    let helper = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .env_clear()
        .current_dir("/")
        // A Ctrl-C is for who answers it.
        .process_group(0)
        .spawn()?;
    // Lost only to a call at the same time, and then it ends at once: nobody holds its input any more.
    let _ = HELPER.set(Mutex::new(helper));
    Ok(())
}

/// What the helper says; none where there is no helper.
pub(super) fn ask(kind: OwnerKind, name: &OwnerName) -> Option<io::Result<Option<u32>>> {
    let mut helper = HELPER.get()?.lock().unwrap_or_else(PoisonError::into_inner);
    let Child { stdin, stdout, .. } = &mut *helper;
    let (Some(input), Some(output)) = (stdin, stdout) else {
        return Some(Err(io::ErrorKind::BrokenPipe.into()));
    };
    let answer = request(kind, name, input, output);
    Some(answer.map_err(|error| match error.raw_os_error() {
        Some(errno) if errno != libc::EPIPE => error,
        _ => io::Error::other("the process that knows them has ended; start again"),
    }))
}

fn request(
    kind: OwnerKind,
    name: &OwnerName,
    input: &mut impl Write,
    output: &mut impl Read,
) -> io::Result<Option<u32>> {
    let name = name.as_bytes();
    let length = u8::try_from(name.len()).map_err(io::Error::other)?;
    let kind = match kind {
        OwnerKind::User => b'u',
        OwnerKind::Group => b'g',
    };
    input.write_all(&[&[kind, length], name].concat())?;
    input.flush()?;
    let mut answer = [0; 5];
    output.read_exact(&mut answer)?;
    let [verdict, number @ ..] = answer;
    let number = u32::from_be_bytes(number);
    match verdict {
        b'+' => Ok(Some(number)),
        b'-' => Ok(None),
        _ => Err(io::Error::from_raw_os_error(number.cast_signed())),
    }
}

/// Answers until the input ends. Anything that is no request ends it as well.
pub fn serve_accounts(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let kind = match head[0] {
            b'u' => OwnerKind::User,
            b'g' => OwnerKind::Group,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let mut name = vec![0; usize::from(head[1])];
        input.read_exact(&mut name)?;
        let name = OwnerName::new(name).map_err(io::Error::other)?;
        let (verdict, number) = match find_id(kind, &name) {
            Ok(Some(id)) => (b'+', id),
            Ok(None) => (b'-', 0),
            Err(error) => (b'!', error.raw_os_error().unwrap_or(libc::EIO).cast_unsigned()),
        };
        output.write_all(&[&[verdict][..], &number.to_be_bytes()].concat())?;
        output.flush()?;
    }
}

/// Gives up being root, which nobody needs to be to look a name up, and all ways to become it again. To be called before
/// there is any thread. Where that is not possible, as in a user namespace, who calls stays who they are.
pub fn become_nobody() {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (group, user) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    let _ = set_no_new_privs(true);
    let _ = set_thread_groups(&[]);
    let _ = set_thread_res_gid(group, group, group);
    let _ = set_thread_res_uid(user, user, user);
}

/// The user and group that own nothing: the kernel's overflow id.
const NOBODY: u32 = 65_534;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn answered(kind: OwnerKind, name: &str) -> io::Result<Option<u32>> {
        let (name, mut asked) = (OwnerName::new(name).unwrap(), Vec::new());
        // The request alone first: there is no answer yet.
        request(kind, &name, &mut asked, &mut io::empty()).unwrap_err();
        let mut said = Vec::new();
        serve_accounts(Cursor::new(asked), &mut said).unwrap();
        request(kind, &name, &mut io::sink(), &mut Cursor::new(said))
    }

    #[test]
    fn what_is_asked_is_answered() {
        assert_eq!(answered(OwnerKind::User, "root").unwrap(), Some(0));
        assert_eq!(answered(OwnerKind::Group, "root").unwrap(), Some(0));
        assert_eq!(answered(OwnerKind::User, "no-such-user-here").unwrap(), None);
        let longest = "x".repeat(255);
        assert_eq!(answered(OwnerKind::Group, &longest).unwrap(), None);
    }

    #[test]
    fn what_is_no_request_ends_it() {
        for bytes in [&b"x\x01a"[..], b"u\x00", b"u\x02a\x00", b"u\x05ab"] {
            let mut said = Vec::new();
            serve_accounts(bytes, &mut said).unwrap_err();
            assert_eq!(said, b"");
        }
    }

    #[test]
    fn failures_keep_their_number() {
        let name = OwnerName::new("ann").unwrap();
        let mut answer = Cursor::new([b'!', 0, 0, 0, 13]);
        let error = request(OwnerKind::User, &name, &mut io::sink(), &mut answer).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(13));
    }
}
