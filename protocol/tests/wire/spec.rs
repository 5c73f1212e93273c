//! `SPEC.md` says what the code does.

use crate::dump;
use driftless_protocol::Xattrs;
use driftless_protocol::message::*;
use driftless_protocol::stream::{StreamKind, head};
use driftless_protocol::version::{ALPN_MIRROR, ALPN_PAIR, ALPN_PULL, Hello};
use driftless_protocol::{Attributes, CloseCode, ObjectId, Timestamp, codec, limits};
use std::collections::BTreeMap;

const SPEC: &str = include_str!("../../SPEC.md");
const LIMITS: &str = include_str!("../../src/limits.rs");

/// The text between a heading and the next of the same level.
fn section(heading: &str) -> &'static str {
    let from = SPEC
        .find(heading)
        .unwrap_or_else(|| panic!("SPEC.md has no {heading:?}"));
    let rest = &SPEC[from + heading.len()..];
    rest.split("\n## ").next().unwrap()
}

/// The rows of the tables in a section, as their cells.
fn rows(section: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = section
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.map(|line| line.split('|').map(str::trim).collect())
}

macro_rules! constants {
    ($($name:ident)*) => { [$((stringify!($name), limits::$name as u128)),*] };
}

#[test]
fn limits_are_those_of_the_code() {
    let code = BTreeMap::from(constants![
        NAME_BYTES_MAX PATH_ELEMENTS_MAX LINK_TARGET_BYTES_MAX XATTR_NAME_BYTES_MAX XATTR_VALUE_BYTES_MAX XATTRS_MAX XATTR_SET_BYTES_MAX MODULE_NAME_BYTES_MAX TEXT_BYTES_MAX
        CONTROL_MESSAGE_BYTES_MAX OP_FRAME_BYTES_MAX CONFIRMS_MAX OPS_PER_FRAME_MAX INLINE_CONTENT_BYTES_MAX PATCH_LITERALS_BYTES_MAX RANGE_BYTES_MAX
        BULK_FRAME_BYTES_MAX DELTA_PARTS_MAX LISTING_ROWS_MAX LIST_DIRECTORIES_MAX CONTENTS_NAMES_MAX DOUBTED_PATHS_MAX SIGNATURE_PART_BYTES_MAX
        SIGNATURE_BYTES_MAX OPS_IN_FLIGHT_MAX ENDED_RUNS_MAX INLINE_IN_FLIGHT_BYTES_MAX WANTED_FILES_MAX PAIRING_MESSAGE_BYTES_MAX PULL_MESSAGE_BYTES_MAX NOTE_BYTES_MAX PAIRING_SECRET_BYTES MODE_MAX
        COMPRESSION_WINDOW_LOG_MAX FILE_BYTES_MAX SPAN_BYTES HELD_SPANS_MAX HELD_SPANS_TOTAL_MAX OWNER_NAME_BYTES_MAX OWNERS_MAX OWNERS_TOTAL_MAX RELAYS_MAX
    ]);
    let declared: Vec<_> = LIMITS
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.split(':').next())
        .collect();
    let missing: Vec<_> = declared.iter().filter(|name| !code.contains_key(*name)).collect();
    assert!(missing.is_empty(), "add to this test and to SPEC.md: {missing:?}");

    let written: BTreeMap<_, _> = rows(section("## 11. Limits"))
        .filter_map(|cells| {
            let name = cells[0].strip_prefix('`')?.strip_suffix('`')?;
            Some((name, cells[1].replace(',', "").parse::<u128>().unwrap()))
        })
        .collect();
    assert_eq!(written, code);
}

#[test]
fn close_codes_are_those_of_the_code() {
    let mut written = 0;
    for cells in rows(section("## 10. Close codes")).filter(|cells| cells[1].starts_with('`')) {
        let code = CloseCode::from_number(cells[0].parse().unwrap());
        assert_eq!(code.number().to_string(), cells[0]);
        assert_eq!(format!("`{code:?}`"), cells[1]);
        assert_eq!(code.is_temporary(), cells[3] == "yes", "{code:?}");
        written += 1;
    }
    assert_eq!(written, 13);
    assert_eq!(
        CloseCode::from_number(written),
        CloseCode::Violation,
        "a code is missing in SPEC.md"
    );
}

#[test]
fn alpns_are_those_of_the_code() {
    let written: Vec<_> = rows(section("## 2. Transport"))
        .filter(|cells| cells[0].starts_with('`'))
        .collect();
    let names: Vec<_> = written
        .iter()
        .map(|cells| cells[0].trim_matches('`').as_bytes())
        .collect();
    assert_eq!(names, [ALPN_MIRROR, ALPN_PAIR, ALPN_PULL]);
}

fn example(name: &str) -> Vec<u8> {
    let marker = format!("# golden: {name}\n");
    let (_, rest) = SPEC
        .split_once(&marker)
        .unwrap_or_else(|| panic!("SPEC.md has no {marker:?}"));
    dump::bytes(rest.split("```").next().unwrap())
}

#[test]
fn examples_are_what_the_code_makes() {
    assert_eq!(example("hello"), Hello::OURS.to_bytes());
    let mtime = Timestamp::new(1_700_000_000, 5).unwrap();
    let attributes = Attributes {
        mode: 0o644,
        uid: 1_000,
        gid: 100,
        mtime,
        ..Attributes::default()
    };
    let body = OpBody::SetAttributes {
        object: ObjectId(2),
        attributes,
    };
    let frame = OpFrame(vec![OpMessage::Op(Op {
        number: 300,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    })]);
    assert_eq!(example("op frame"), codec::encode(&frame).unwrap());
    assert_eq!(example("head of a stream"), head(StreamKind::Bulk, 300));
}
