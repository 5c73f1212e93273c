use super::*;
use std::os::unix::fs::PermissionsExt;

fn home(variables: &[(&str, &str)], user: u32) -> Result<Home, HomeError> {
    let find = |wanted: &str| {
        variables
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| OsString::from(value))
    };
    Home::from_environment(&find, user)
}

#[test]
fn the_variable_moves_everything_for_everyone() {
    for user in [0, 1000] {
        let home = home(
            &[
                (HOME_VARIABLE, "/h"),
                ("XDG_CONFIG_HOME", "/x"),
                ("HOME", "/home/u"),
            ],
            user,
        )
        .unwrap();
        assert_eq!(home, Home::at("/h"));
        assert_eq!(home.identity_dir(), Path::new("/h/identity"));
        assert_eq!(home.invites_dir(), Path::new("/h/invites"));
        assert_eq!(home.run_dirs(), [Path::new("/h/run")]);
    }
}

#[test]
fn root_uses_the_places_of_the_system() {
    let home = home(&[("HOME", "/home/u"), ("XDG_STATE_HOME", "/x")], 0).unwrap();
    assert_eq!(home.identity_dir(), Path::new("/etc/driftless/identity"));
    assert_eq!(home.invites_dir(), Path::new("/var/lib/driftless/invites"));
    assert_eq!(home.run_dirs(), [Path::new("/run/driftless")]);
}

#[test]
fn users_get_the_xdg_places_and_relative_ones_are_ignored() {
    let plain = home(
        &[
            ("HOME", "/home/u"),
            ("XDG_CONFIG_HOME", "relative"),
            ("XDG_STATE_HOME", ""),
        ],
        7,
    )
    .unwrap();
    assert_eq!(
        plain.identity_dir(),
        Path::new("/home/u/.config/driftless/identity")
    );
    assert_eq!(
        plain.invites_dir(),
        Path::new("/home/u/.local/state/driftless/invites")
    );
    let state_run = PathBuf::from("/home/u/.local/state/driftless/run");
    assert_eq!(
        plain.run_dirs(),
        [state_run.clone(), "/run/user/7/driftless".into()]
    );
    let set = home(&[("HOME", "/home/u"), ("XDG_RUNTIME_DIR", "/run/user/7")], 7).unwrap();
    assert_eq!(
        set.run_dirs(),
        [PathBuf::from("/run/user/7/driftless"), state_run]
    );
    let all = [("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s")];
    assert_eq!(
        home(&all, 7).unwrap().identity_dir(),
        Path::new("/c/driftless/identity")
    );
    assert!(matches!(home(&[], 7), Err(HomeError::Unset)));
}

#[test]
fn a_foreign_home_is_refused_by_name_and_owner() {
    let dir = tempfile::tempdir().unwrap();
    let owner = fs::metadata(dir.path()).unwrap().uid();
    let home = Home::at(dir.path());
    home.check_owner(owner).unwrap();
    let text = home.check_owner(owner + 1).unwrap_err().to_string();
    assert!(text.contains(&format!("belongs to user {owner}")), "{text}");
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    Home::at(dir.path().join("missing")).check_owner(owner).unwrap();
}

#[test]
fn directories_are_made_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    let path = RelPath::parse(b"a/b").unwrap();
    for made in [home.run_dir(), home.module_dir("m", &path), home.mirror_dir("k")] {
        assert_eq!(
            fs::metadata(&made).unwrap().permissions().mode() & 0o777,
            0o700,
            "{made:?}"
        );
    }
    assert_eq!(
        fs::metadata(dir.path().join("h")).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn state_directories_are_distinct_readable_and_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path());
    let root = RelPath::root();
    let names = [
        home.module_dir("photos", &root),
        home.module_dir("photos", &RelPath::parse(b"a").unwrap()),
        home.module_dir("../..", &root),
        home.module_dir("photos.", &root),
    ];
    for (at, path) in names.iter().enumerate() {
        assert_eq!(path.parent(), names[0].parent(), "{path:?}");
        assert!(!names[..at].contains(path));
    }
    assert!(
        names[0]
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("photos-")
    );
    let inside = names[0].strip_prefix(dir.path()).unwrap();
    assert!(inside.as_os_str().as_bytes().starts_with(name::RESERVED_PREFIX));
    let key = |source: &str, target: &str| Home::mirror_key(Path::new(source), target);
    assert_ne!(key("/a\nb", "c"), key("/a", "b\nc"));
    let long = home.mirror_dir(&key(&"/ä".repeat(4000), "nas::photos"));
    assert!(long.file_name().unwrap().len() < 100 && long.is_dir());
}
