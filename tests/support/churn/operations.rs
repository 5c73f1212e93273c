//! The kinds of operations.

use super::sys::{allocate, exchange, fifo, punch_hole};
use super::{Churn, Found, Operation};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

macro_rules! operations {
    ($($weight:literal $name:literal $act:ident)*) => {
        /// All kinds of operations.
        pub const OPERATIONS: &[Operation] = &[$(Operation { name: $name, weight: $weight, act: $act }),*];
    };
}

operations! {
    4 "create a file" create
    2 "overwrite" overwrite
    2 "write inside" write_inside
    2 "append" append
    2 "truncate" truncate
    1 "write and put the time back" write_and_put_time_back
    1 "write far behind the end" write_behind_end
    1 "punch a hole" punch
    1 "allocate" preallocate
    3 "rename a file" rename_file
    3 "rename a directory" rename_directory
    2 "rename over another" rename_over
    2 "exchange" exchange_two
    1 "rename and rename back" rename_back
    1 "pass names on" rotate
    2 "save by renaming over" save_over
    4 "make directories" make_directories
    2 "make a symbolic link" make_link
    2 "set a mode" set_mode
    2 "set a time" set_time
    1 "set an owner" set_owner
    2 "become another kind" change_kind
    2 "hard link, and the old name anew" link_and_anew
    0 "hard link" hard_link
    1 "make a FIFO or a socket" make_special
    1 "create and remove" create_and_remove
    1 "remove and create alike" remove_and_create_alike
    2 "move out" move_out
    2 "move in" move_in
    2 "remove a file" remove_file
    1 "remove something special" remove_special
    1 "remove a directory" remove_directory
}

fn create(churn: &mut Churn, found: &Found) -> Option<String> {
    let new = churn.fresh(found);
    fs::write(&new, churn.random.bytes()).unwrap();
    Some(churn.shown(&new))
}

fn overwrite(churn: &mut Churn, found: &Found) -> Option<String> {
    let file = churn.random.pick(&found.files)?;
    fs::write(&file, churn.random.bytes()).unwrap();
    Some(churn.shown(&file))
}

fn open(file: &Path) -> File {
    OpenOptions::new().write(true).open(file).unwrap()
}

fn length(file: &File) -> usize {
    file.metadata().unwrap().len() as usize
}

fn write_inside(churn: &mut Churn, found: &Found) -> Option<String> {
    let path = churn.random.pick(&found.files)?;
    let mut file = open(&path);
    let at = churn.random.below(length(&file)) as u64;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&churn.random.next().to_le_bytes()).unwrap();
    Some(format!("{} at {at}", churn.shown(&path)))
}

fn append(churn: &mut Churn, found: &Found) -> Option<String> {
    let path = churn.random.pick(&found.files)?;
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    for _ in 0..churn.random.below(4) {
        file.write_all(&churn.random.bytes()).unwrap();
    }
    Some(churn.shown(&path))
}

fn truncate(churn: &mut Churn, found: &Found) -> Option<String> {
    let path = churn.random.pick(&found.files)?;
    let file = open(&path);
    let size = churn.random.below(length(&file));
    file.set_len(size as u64).unwrap();
    Some(format!("{} to {size}", churn.shown(&path)))
}

/// Neither size nor mtime tells.
fn write_and_put_time_back(churn: &mut Churn, found: &Found) -> Option<String> {
    let path = churn.random.pick(&found.files)?;
    let file = open(&path);
    let size = length(&file);
    if size == 0 {
        return None;
    }
    let before = file.metadata().unwrap().modified().unwrap();
    let at = churn.random.below(size) as u64;
    file.write_all_at(&[churn.random.next() as u8], at).unwrap();
    file.set_modified(before).unwrap();
    Some(format!("{} at {at}", churn.shown(&path)))
}

fn write_behind_end(churn: &mut Churn, found: &Found) -> Option<String> {
    let path = churn.random.pick(&found.files)?;
    let file = open(&path);
    if length(&file) > 4 << 20 {
        return None;
    }
    let at = (length(&file) + churn.random.below(300_000)) as u64;
    file.write_all_at(b"behind", at).unwrap();
    Some(format!("{} at {at}", churn.shown(&path)))
}

fn punch(churn: &mut Churn, found: &Found) -> Option<String> {
    let path = churn.random.pick(&found.files)?;
    let file = open(&path);
    let at = churn.random.below(length(&file)) as u64;
    let length = 1 + churn.random.below(100_000) as u64;
    punch_hole(&file, at, length);
    Some(format!("{} at {at}, {length} bytes", churn.shown(&path)))
}

fn preallocate(churn: &mut Churn, found: &Found) -> Option<String> {
    let path = churn.random.pick(&found.files)?;
    let file = open(&path);
    let at = churn.random.below(length(&file)) as u64;
    let length = 1 + churn.random.below(100_000) as u64;
    allocate(&file, at, length);
    Some(format!("{} at {at}, {length} bytes", churn.shown(&path)))
}

fn rename_file(churn: &mut Churn, found: &Found) -> Option<String> {
    let (file, new) = (churn.random.pick(&found.files)?, churn.fresh(found));
    fs::rename(&file, &new).unwrap();
    Some(format!("{} to {}", churn.shown(&file), churn.shown(&new)))
}

fn rename_directory(churn: &mut Churn, found: &Found) -> Option<String> {
    let (directory, new) = (churn.random.pick(&found.directories)?, churn.fresh(found));
    if new.starts_with(&directory) {
        return None;
    }
    fs::rename(&directory, &new).unwrap();
    Some(format!("{} to {}", churn.shown(&directory), churn.shown(&new)))
}

fn rename_over(churn: &mut Churn, found: &Found) -> Option<String> {
    let (file, other) = (churn.random.pick(&found.files)?, churn.random.pick(&found.files)?);
    fs::rename(&file, &other).unwrap();
    Some(format!("{} over {}", churn.shown(&file), churn.shown(&other)))
}

fn exchange_two(churn: &mut Churn, found: &Found) -> Option<String> {
    let (one, other) = (
        churn.random.pick(&found.everything)?,
        churn.random.pick(&found.everything)?,
    );
    if one.starts_with(&other) || other.starts_with(&one) {
        return None;
    }
    exchange(&one, &other);
    Some(format!("{} and {}", churn.shown(&one), churn.shown(&other)))
}

fn rename_back(churn: &mut Churn, found: &Found) -> Option<String> {
    let (any, new) = (churn.random.pick(&found.everything)?, churn.fresh(found));
    if new.starts_with(&any) {
        return None;
    }
    fs::rename(&any, &new).unwrap();
    fs::rename(&new, &any).unwrap();
    Some(format!("{}, meanwhile {}", churn.shown(&any), churn.shown(&new)))
}

/// As log files are rotated: each takes the next one's name.
fn rotate(churn: &mut Churn, found: &Found) -> Option<String> {
    let mut names = vec![churn.fresh(found)];
    for _ in 0..4 {
        let file = churn.random.pick(&found.files)?;
        if !names.contains(&file) {
            names.push(file);
        }
    }
    for pair in names.windows(2) {
        fs::rename(&pair[1], &pair[0]).unwrap();
    }
    let shown: Vec<_> = names.iter().map(|name| churn.shown(name)).collect();
    Some(shown.join(" <- "))
}

fn save_over(churn: &mut Churn, found: &Found) -> Option<String> {
    let file = churn.random.pick(&found.files)?;
    let aside = file.with_file_name("aside.tmp");
    if aside.symlink_metadata().is_ok() {
        return None;
    }
    fs::write(&aside, churn.random.bytes()).unwrap();
    fs::rename(aside, &file).unwrap();
    Some(churn.shown(&file))
}

fn make_directories(churn: &mut Churn, found: &Found) -> Option<String> {
    let new = churn.fresh(found);
    fs::create_dir_all(new.join("deep/er")).unwrap();
    fs::write(new.join("deep/file"), churn.random.bytes()).unwrap();
    Some(format!("{}/deep/er", churn.shown(&new)))
}

fn make_link(churn: &mut Churn, found: &Found) -> Option<String> {
    let new = churn.fresh(found);
    symlink(format!("to/{}", churn.random.below(1_000)), &new).unwrap();
    Some(churn.shown(&new))
}

fn set_mode(churn: &mut Churn, found: &Found) -> Option<String> {
    let any = churn
        .random
        .pick(&found.everything)
        .filter(|any| !any.is_symlink())?;
    let mode = 0o600 | churn.random.below(0o100) as u32 | if any.is_dir() { 0o700 } else { 0 };
    fs::set_permissions(&any, Permissions::from_mode(mode)).unwrap();
    Some(format!("{mode:o} {}", churn.shown(&any)))
}

/// Any file and any directory; a FIFO cannot be opened without waiting.
fn set_time(churn: &mut Churn, found: &Found) -> Option<String> {
    let any = churn
        .random
        .pick(&found.everything)
        .filter(|any| !found.specials.contains(any) && !any.is_symlink())?;
    let seconds = churn.random.below(1 << 31) as u64;
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, churn.random.below(1_000_000_000) as u32);
    File::open(&any).unwrap().set_modified(time).unwrap();
    Some(churn.shown(&any))
}

/// Root alone may give things away.
fn set_owner(churn: &mut Churn, found: &Found) -> Option<String> {
    let any = churn.random.pick(&found.everything)?;
    let number = |random: &mut super::Random| 1_000 + random.below(5) as u32;
    let (user, group) = (number(&mut churn.random), number(&mut churn.random));
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    std::os::unix::fs::lchown(&any, Some(user), Some(group)).unwrap();
    Some(format!("{user}:{group} {}", churn.shown(&any)))
}

fn remove(any: &Path) {
    if any.is_dir() && !any.is_symlink() {
        fs::remove_dir_all(any).unwrap()
    } else {
        fs::remove_file(any).unwrap()
    }
}

fn change_kind(churn: &mut Churn, found: &Found) -> Option<String> {
    let any = churn.random.pick(&found.everything)?;
    remove(&any);
    let kind = churn.random.below(4);
    match kind {
        0 => fs::write(&any, churn.random.bytes()).unwrap(),
        1 => fs::create_dir(&any).unwrap(),
        2 => fifo(&any),
        _ => symlink("somewhere", &any).unwrap(),
    }
    Some(format!("{} to kind {kind}", churn.shown(&any)))
}

/// The way editors and dotlock do it: the second name stays, the first is written anew.
fn link_and_anew(churn: &mut Churn, found: &Found) -> Option<String> {
    let (file, new) = (churn.random.pick(&found.files)?, churn.fresh(found));
    fs::hard_link(&file, &new).unwrap();
    let aside = churn.outside.join("anew");
    fs::write(&aside, churn.random.bytes()).unwrap();
    fs::rename(aside, &file).unwrap();
    Some(format!("{} to {}", churn.shown(&file), churn.shown(&new)))
}

/// Both names stay, and whatever is written through one is to be found under the other.
fn hard_link(churn: &mut Churn, found: &Found) -> Option<String> {
    let (file, new) = (churn.random.pick(&found.files)?, churn.fresh(found));
    fs::hard_link(&file, &new).unwrap();
    Some(format!("{} to {}", churn.shown(&file), churn.shown(&new)))
}

fn make_special(churn: &mut Churn, found: &Found) -> Option<String> {
    let new = churn.fresh(found);
    if churn.random.one_in(2) {
        fifo(&new);
    } else {
        // A socket's address holds 107 bytes; its file stays when the listener goes.
        let Ok(listener) = UnixListener::bind(&new) else {
            return None;
        };
        drop(listener);
    }
    Some(churn.shown(&new))
}

fn create_and_remove(churn: &mut Churn, found: &Found) -> Option<String> {
    let new = churn.fresh(found);
    for _ in 0..3 {
        fs::write(&new, churn.random.bytes()).unwrap();
        fs::remove_file(&new).unwrap();
    }
    Some(churn.shown(&new))
}

/// Other content of the same size and time, often with the same inode.
fn remove_and_create_alike(churn: &mut Churn, found: &Found) -> Option<String> {
    let file = churn.random.pick(&found.files)?;
    let before = fs::metadata(&file).unwrap();
    let size = usize::try_from(before.size()).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, churn.random.exactly(size)).unwrap();
    open(&file).set_modified(before.modified().unwrap()).unwrap();
    Some(churn.shown(&file))
}

fn move_out(churn: &mut Churn, found: &Found) -> Option<String> {
    let any = churn.random.pick(&found.everything)?;
    churn.number += 1;
    fs::rename(&any, churn.outside.join(format!("o{}", churn.number))).unwrap();
    Some(churn.shown(&any))
}

fn move_in(churn: &mut Churn, found: &Found) -> Option<String> {
    let mut outside: Vec<PathBuf> = fs::read_dir(&churn.outside)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    outside.sort();
    let (any, new) = (churn.random.pick(&outside)?, churn.fresh(found));
    fs::rename(&any, &new).unwrap();
    Some(format!("{} as {}", any.display(), churn.shown(&new)))
}

fn remove_file(churn: &mut Churn, found: &Found) -> Option<String> {
    let file = churn.random.pick(&found.files)?;
    fs::remove_file(&file).unwrap();
    Some(churn.shown(&file))
}

fn remove_special(churn: &mut Churn, found: &Found) -> Option<String> {
    let special = churn.random.pick(&found.specials)?;
    fs::remove_file(&special).unwrap();
    Some(churn.shown(&special))
}

fn remove_directory(churn: &mut Churn, found: &Found) -> Option<String> {
    let directory = churn.random.pick(&found.directories)?;
    fs::remove_dir_all(&directory).unwrap();
    Some(churn.shown(&directory))
}
