//! Directories that make room for others: what the target keeps in one is not lost with it, whatever becomes of its own op.

use super::failing::{judge, nothing_fails};
use super::*;
use crate::fs::{Call, Stamp};
use std::cell::Cell;
use std::rc::Rc;

/// What takes the place of the directory "x", number 10, which holds something of the target's own.
const TAKERS: [&str; 4] = ["a file", "a new directory", "a tree", "a tree from elsewhere"];

impl Bench {
    fn with_a_full_directory() -> Bench {
        let mut bench = Bench::new();
        bench.make(10, place(1, "x"));
        bench.put(11, place(10, "inside"), "the mirror's");
        bench.make(20, place(1, "tree"));
        bench.put(21, place(20, "its own"), "a tree");
        bench.make(30, place(1, "away"));
        bench.make(31, place(30, "tree"));
        bench.put(32, place(31, "its own"), "a tree from elsewhere");
        fs::write(bench.path("x/kept"), "the target's").unwrap();
        bench.replica.commit_durably(None, true).unwrap();
        bench
    }

    fn take(&mut self, taker: &str) -> Result<(), ApplyError> {
        let x = place(1, "x");
        match taker {
            "a file" => self.try_put(40, x, "a file"),
            "a new directory" => self.apply(|replica, t| {
                replica.make_directory(t, x, ObjectId(41), attributes(), &Xattrs::default())
            }),
            "a tree" => self.shift(20, x),
            _ => self.shift(31, x),
        }
    }

    /// The directory in which what the target keeps is seen.
    fn keeping_place(&self) -> String {
        let names = self.names();
        let found: Vec<_> = names.iter().filter(|name| name.ends_with("/kept")).collect();
        assert_eq!(found.len(), 1, "{names:?}");
        assert_eq!(self.read(found[0]), "the target's");
        found[0].trim_end_matches("/kept").to_owned()
    }

    fn place_of(&self, object: u64) -> Option<Place> {
        let catalog = &self.replica.catalog;
        let entry = catalog.read(|view| view.get(ObjectId(object))).unwrap();
        entry.map(|entry| entry.place)
    }
}

#[test]
fn what_a_parked_directory_holds_is_there_wherever_the_disk_ends() {
    for taker in TAKERS {
        let mut ends_at = 1;
        loop {
            let mut bench = Bench::with_a_full_directory();
            let (mut calls, ended) = (0, Rc::new(Cell::new(false)));
            let has_ended = ended.clone();
            judge(move |call| {
                calls += usize::from(call == Call::Name);
                has_ended.set(calls >= ends_at);
                calls < ends_at
            });
            let outcome = bench.take(taker);
            nothing_fails();
            if !ended.get() {
                outcome.unwrap();
                assert_eq!(bench.replica.parked.len(), 1, "{taker}");
            }
            let mut bench = bench.reopen(&Keeping::default());
            let names = bench.names();
            let hidden = names.iter().find(|name| name.contains(".driftless"));
            assert_eq!(hidden, None, "{taker}, cut off at {ends_at}: {names:?}");
            let at = bench.keeping_place();
            assert_eq!(bench.read(&format!("{at}/inside")), "the mirror's");
            if !ended.get() {
                assert!(at.starts_with("driftless-parked-"), "{taker}: {at}");
                assert_eq!(bench.place_of(10), Some(place(1, &at)), "{taker}");
                assert_eq!(bench.place_of(11), Some(place(10, "inside")), "{taker}");
                bench.shift(10, place(1, "later")).unwrap();
                assert_eq!(bench.read("later/kept"), "the target's", "{taker}");
                break;
            }
            ends_at += 1;
        }
        assert!(ends_at > 1, "{taker}: nothing was cut off");
    }
}

/// As a reboot can leave it, and a loss of power is followed by one.
#[test]
fn a_parked_directory_keeps_its_number_on_a_device_of_another() {
    let mut bench = Bench::with_a_full_directory();
    bench.take("a new directory").unwrap();
    bench
        .apply(|_, t| {
            let mut entry = t.get(ObjectId(10))?.unwrap();
            let known = Stamp::from_bytes(&entry.stamp.unwrap()).unwrap();
            let device = known.device + 1;
            entry.stamp = Some(Stamp { device, ..known }.to_bytes());
            Ok(t.put(&entry)?)
        })
        .unwrap();
    bench.replica.commit_durably(None, true).unwrap();
    let bench = bench.reopen(&Keeping::default());
    let at = bench.keeping_place();
    assert_eq!(bench.place_of(10), Some(place(1, &at)));
    assert_eq!(bench.place_of(11), Some(place(10, "inside")));
}

#[test]
fn what_a_parked_directory_holds_is_there_when_its_own_op_is_lost() {
    for taker in TAKERS {
        let mut bench = Bench::with_a_full_directory();
        bench.take(taker).unwrap();
        bench.apply(|replica, t| replica.remove_parked(t)).unwrap();
        let at = bench.keeping_place();
        assert_eq!(bench.place_of(10), Some(place(1, &at)), "{taker}");
        let is_hidden = |name: &String| name.contains(".driftless");
        assert!(
            !bench.names().iter().any(is_hidden),
            "{taker}: {:?}",
            bench.names()
        );
        bench.shift(10, place(1, "later")).unwrap();
        assert_eq!(bench.read("later/kept"), "the target's", "{taker}");
        assert_eq!(bench.read("later/inside"), "the mirror's", "{taker}");
    }
}

#[test]
fn a_parked_directory_that_holds_nothing_goes() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "x"));
    bench.put(11, place(1, "x"), "a file now");
    assert_eq!(bench.names().len(), 2, "it is parked");
    bench.apply(|replica, t| replica.remove_parked(t)).unwrap();
    assert_eq!((bench.names(), bench.place_of(10)), (vec!["x".to_owned()], None));
}

/// A directory of the target's own can hold what has numbers of the mirror: its own one went elsewhere.
#[test]
fn what_is_in_a_directory_whose_number_went_elsewhere_is_released_where_it_may_stay() {
    let mut bench = Bench::with_a_full_directory();
    bench.make(12, place(10, "deep"));
    bench.put(13, place(12, "inside"), "the mirror's");
    fs::create_dir(bench.path("tree/new")).unwrap();
    bench.replica.commit_durably(None, true).unwrap();
    let mut bench = bench.reopen(&Keeping::default());
    bench
        .apply(|replica, t| replica.adopt(t, &place(20, "new"), ObjectId(10)))
        .unwrap();
    assert_eq!(bench.place_of(10), Some(place(20, "new")));
    assert!(bench.replica.has_strangers().unwrap());
    let left = bench.place_of(11).unwrap().directory;
    assert!(left.is_local() && bench.place_of(13).is_some());
    // Where nothing is protected the comparison removes it, or asks.
    bench.apply(|replica, t| replica.release_stranded(t)).unwrap();
    assert_eq!(bench.place_of(11).unwrap().directory, left);
    bench.replica.protects = true;
    bench.replica.stranded.insert(left);
    bench.apply(|replica, t| replica.release_stranded(t)).unwrap();
    assert_eq!(
        [11, 12, 13].map(|object| bench.place_of(object)),
        [const { None }; 3]
    );
    assert_eq!(bench.keeping_place(), "x");
}

/// Both take a number from what is parked, or what it stands for from the mirror: neither is a removal of what is in it.
#[test]
fn a_parked_directory_that_is_let_go_keeps_what_it_holds() {
    let bench = Bench::with_a_full_directory();
    fs::create_dir(bench.path("stranger")).unwrap();
    let mut bench = bench.reopen(&Keeping::default());
    bench.take("a file").unwrap();
    bench
        .apply(|replica, t| replica.adopt(t, &place(1, "stranger"), ObjectId(10)))
        .unwrap();
    assert!(bench.keeping_place().starts_with("driftless-parked-"));
    assert_eq!(bench.place_of(10), Some(place(1, "stranger")));
    assert!(bench.replica.has_strangers().unwrap());

    let mut bench = Bench::with_a_full_directory();
    bench.take("a tree").unwrap();
    bench
        .apply(|replica, t| replica.release(t, ObjectId(10)))
        .unwrap();
    assert!(bench.keeping_place().starts_with("driftless-parked-"));
    assert_eq!((bench.place_of(10), bench.place_of(11)), (None, None));
    assert!(bench.replica.has_strangers().unwrap());
}
