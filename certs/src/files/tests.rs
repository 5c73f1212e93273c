use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};

const USER: u32 = 1000;

fn check(access: Access, owner: u32, mode: u32) -> Result<(), String> {
    check_access(Path::new("/x/f"), "the file", access, Facts { owner, mode }, USER)
        .map_err(|e| e.to_string())
}

#[test]
fn a_secret_is_ours_alone() {
    assert_eq!(check(Access::Secret, USER, 0o100600), Ok(()));
    assert_eq!(check(Access::Secret, USER, 0o100400), Ok(()));
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777] {
        let message = check(Access::Secret, USER, mode).unwrap_err();
        assert!(message.contains("chmod 0600 /x/f"), "{message}");
    }
    for owner in [0, 1, USER + 1] {
        let message = check(Access::Secret, owner, 0o600).unwrap_err();
        assert!(message.contains(&format!("owned by user {owner}")), "{message}");
    }
}

#[test]
fn a_guarded_file_may_be_read_by_others_and_owned_by_root() {
    for owner in [0, USER] {
        assert_eq!(check(Access::Guarded, owner, 0o644), Ok(()));
    }
    assert!(check(Access::Guarded, USER + 1, 0o600).is_err());
    for mode in [0o620, 0o602, 0o666] {
        assert!(
            check(Access::Guarded, USER, mode)
                .unwrap_err()
                .contains("lets other users change it")
        );
    }
}

#[test]
fn a_pipe_is_refused_and_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(matches!(
        read(&path, Access::Secret, 10),
        Err(FileError::WrongKind { .. })
    ));
}

#[test]
fn reads_up_to_the_limit_and_through_own_links() {
    let dir = tempfile::tempdir().unwrap();
    let locked = LockedDir::lock(dir.path()).unwrap();
    locked.write("f", 0o600, b"12345").unwrap();
    symlink("f", dir.path().join("link")).unwrap();
    for name in ["f", "link"] {
        let path = dir.path().join(name);
        assert_eq!(
            read(&path, Access::Secret, 5).unwrap().as_deref(),
            Some(&b"12345"[..])
        );
        assert!(matches!(
            read(&path, Access::Secret, 4),
            Err(FileError::TooLarge { limit: 4, .. })
        ));
    }
    assert!(
        read(&dir.path().join("none"), Access::Secret, 5)
            .unwrap()
            .is_none()
    );
    // What a link points to may only be away for now.
    symlink("none", dir.path().join("dangling")).unwrap();
    assert!(matches!(
        read(&dir.path().join("dangling"), Access::Secret, 5),
        Err(FileError::Io { .. })
    ));
}

#[test]
fn a_link_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    LockedDir::lock(dir.path())
        .unwrap()
        .write("f", 0o600, b"x")
        .unwrap();
    let link = dir.path().join("link");
    symlink("f", &link).unwrap();
    // Only root can give a link away; for others the pure check above has to do.
    if std::os::unix::fs::lchown(&link, Some(effective_user() + 1), None).is_ok() {
        let error = read(&link, Access::Guarded, 5).unwrap_err();
        assert!(
            matches!(
                error,
                FileError::ForeignOwner {
                    what: "the symbolic link",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_write_replaces_at_once_clears_leftovers_and_sets_the_mode() {
    let dir = tempfile::tempdir().unwrap();
    let locked = LockedDir::lock(dir.path()).unwrap();
    fs::write(dir.path().join(".f.tmp"), b"left by a crash").unwrap();
    locked.write("f", 0o600, b"old").unwrap();
    locked.write("f", 0o600, b"new").unwrap();
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new");
    assert_eq!(fs::metadata(dir.path().join("f")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(list(dir.path()).unwrap(), [".lock", "f"]);
    // A directory in the way: the write fails and leaves nothing behind.
    fs::create_dir(dir.path().join("d")).unwrap();
    assert!(locked.write("d", 0o600, b"x").is_err());
    assert_eq!(list(dir.path()).unwrap(), [".lock", "d", "f"]);
}

#[test]
fn a_directory_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    drop(LockedDir::lock(&inner).unwrap());
    assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o777, 0o700);
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o775)).unwrap();
    let message = LockedDir::lock(&inner).err().unwrap().to_string();
    assert!(message.contains("chmod 0755"), "{message}");
}
