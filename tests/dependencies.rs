//! The floors of `deny.toml` against `Cargo.lock`: S-28, as far as it can be checked without a database of advisories.

use std::fs;
use std::path::Path;

fn read(name: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// The numbers of a version; what comes behind a hyphen or a plus is left out.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap();
    plain.split('.').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn s28_nothing_is_below_its_floor() {
    let (deny, lock) = (read("deny.toml"), read("Cargo.lock"));
    let packages = lock["package"].as_array().unwrap();
    let floors = deny["bans"]["deny"].as_array().unwrap();
    let mut checked = 0;
    for floor in floors {
        let spec = floor["crate"].as_str().unwrap();
        assert!(floor["reason"].is_str(), "{spec} has no reason");
        let (name, below) = match spec.split_once(":<") {
            Some((name, below)) => (name, Some(numbers(below))),
            None => (spec, None),
        };
        for package in packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
        {
            let version = package["version"].as_str().unwrap();
            let is_denied = below.as_ref().is_none_or(|below| numbers(version) < *below);
            assert!(!is_denied, "{name} {version} is denied: {}", floor["reason"]);
            checked += 1;
        }
    }
    assert!(
        checked >= 5,
        "only {checked} packages have a floor: are the names right?"
    );
}

/// Whatever is built comes from the registry or from here.
#[test]
fn s28_no_other_sources() {
    let lock = read("Cargo.lock");
    for package in lock["package"].as_array().unwrap() {
        if let Some(source) = package.get("source") {
            let source = source.as_str().unwrap();
            assert!(source.starts_with("registry+"), "{package}");
            assert!(package.get("checksum").is_some(), "{package}");
        }
    }
}

/// An exception is dated, so that somebody looks at it again.
#[test]
fn s28_exceptions_have_reasons() {
    let deny = read("deny.toml");
    for ignored in deny["advisories"]["ignore"].as_array().unwrap() {
        assert!(
            ignored["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty()),
            "{ignored}"
        );
    }
}
