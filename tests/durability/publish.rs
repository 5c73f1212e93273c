//! Release trees that are published at once, and a receiver that is killed before any of its calls: whoever looks then finds one
//! release, whole.

use crate::crash_points::kill_receiver_of;
use crate::rig::Rig;
use crate::seed;
use std::cell::Cell;
use std::fs;
use std::path::Path;

/// Writes a release whose files say which one it is, and how many there are.
fn write(release: &Path, version: usize) {
    fs::create_dir_all(release.join("sub")).unwrap();
    let files = 4 + version % 3;
    for number in 0..7 {
        let path = release.join(match number % 2 {
            0 => format!("f{number}"),
            _ => format!("sub/f{number}"),
        });
        match number < files {
            true => fs::write(path, format!("{version} {files}")).unwrap(),
            false => _ = fs::remove_file(path),
        }
    }
}

/// All releases that can be seen are whole.
fn check(rig: &Rig) {
    let Ok(releases) = fs::read_dir(rig.module.join("releases")) else {
        return;
    };
    for release in releases {
        let release = release.unwrap().path();
        if release
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(".driftless")
        {
            continue;
        }
        let mut said = Vec::new();
        for directory in [release.clone(), release.join("sub")] {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    said.push(fs::read_to_string(path).unwrap());
                }
            }
        }
        let first = said
            .first()
            .unwrap_or_else(|| panic!("{} is empty", release.display()));
        assert!(
            said.iter().all(|other| other == first),
            "{}: {said:?}",
            release.display()
        );
        let files: usize = first.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(said.len(), files, "{}: {said:?}", release.display());
    }
}

#[test]
fn a_release_is_whole_whenever_the_receiver_is_killed() {
    let version = Cell::new(0);
    let deploy = |rig: &Rig| {
        version.set(version.get() + 1);
        let releases = rig.src().join("releases");
        let current = releases.join("current");
        match version.get() % 3 {
            // Written to, where it stands.
            0 => write(&current, version.get()),
            // Made beside it, and renamed.
            1 => {
                let next = releases.join("next");
                write(&next, version.get());
                if current.exists() {
                    fs::remove_dir_all(&current).unwrap();
                }
                fs::rename(next, current).unwrap();
            }
            // One of a new name, and one that goes.
            _ => {
                for old in fs::read_dir(&releases).unwrap() {
                    let old = old.unwrap().path();
                    if old != current {
                        fs::remove_dir_all(old).unwrap();
                    }
                }
                write(&releases.join(format!("v{}", version.get())), version.get());
            }
        }
    };
    let mut rig = Rig::new();
    rig.options = &["--publish", "releases/*"];
    kill_receiver_of(rig, seed(6), false, deploy, deploy, check);
}
