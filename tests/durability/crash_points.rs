//! C-01, C-10, C-25: a crash before the n-th mutating system call of either side, for every n.
//!
//! Calls are counted over all threads, so a run that is killed before call n and one killed before call n + 1 differ by
//! one change on the disk. In CI a part of the points is tried, spread evenly over the run; a soak tries every one.

use crate::flips::Flips;
use crate::rig::{Note, Rig, driftless, wait_until};
use crate::seed;
use crate::soak;
use crate::support::random::Random;
use crate::support::supervised::{Supervised, Verdict};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Points tried of each test without a soak.
const POINTS: usize = 40;

/// The points of a run that makes so many calls: all of them in a soak, else some from each part.
pub fn points(calls: usize, seed: u64) -> Vec<usize> {
    let step = match soak() {
        10.. => 1,
        times => (calls / (POINTS * times)).max(1),
    };
    let mut random = Random(seed);
    (0..calls)
        .step_by(step)
        .map(|from| from + random.below(step))
        .collect()
}

/// Kills the receiver before each of these calls in turn; what counts is in the module, or in the receiver's home.
fn kill_receiver(seed: u64, counts_home: bool, prepare: impl Fn(&Rig), flip: impl FnMut(&Rig)) {
    kill_receiver_of(Rig::new(), seed, counts_home, prepare, flip, |_| ());
}

/// The same with a receiver that is told more; `check` looks at what a killed one left.
pub fn kill_receiver_of(
    mut rig: Rig,
    seed: u64,
    counts_home: bool,
    prepare: impl Fn(&Rig),
    mut flip: impl FnMut(&Rig),
    check: impl Fn(&Rig),
) {
    prepare(&rig);
    let receiver = rig.receive();
    rig.converge();
    drop(receiver);
    let place = match counts_home {
        true => rig.home.clone(),
        false => rig.module.clone(),
    };
    let mut run = |rig: &mut Rig, kill_at: usize| {
        let (calls, place) = (Arc::new(AtomicUsize::new(0)), place.clone());
        let counted = calls.clone();
        let judge = move |call: &crate::support::supervised::Call| {
            if call.is_in(&place) && counted.fetch_add(1, Ordering::Relaxed) == kill_at {
                return Verdict::Kill;
            }
            Verdict::Pass
        };
        flip(rig);
        rig.expect_source();
        // It may be killed while it starts.
        if let Some(mut receiver) = rig.try_receive_under(judge) {
            let sending = rig.send();
            wait_until("sent or killed", || sending.is_finished() || receiver.has_ended());
            // The half that speaks to the network says good-bye a moment before all of the receiver has ended.
            if !sending.stop().is_ok_and(|summary| summary.in_sync) {
                wait_until("killed", || receiver.has_ended());
            }
            receiver.kill();
        }
        calls.load(Ordering::Relaxed)
    };
    let calls = run(&mut rig, usize::MAX).max(run(&mut rig, usize::MAX));
    rig.check_converged();
    let points = points(calls, seed);
    let (mut crashes, mut again) = (0, Random(!seed));
    for &point in &points {
        // How often the home is flushed depends on the clock: a run may end before its point. The next one is killed at
        // a point that this one would have reached.
        let mut point = point;
        for _ in 0..4 {
            let note = Note(format!("killed before call {point} of {calls}"));
            let made = run(&mut rig, point);
            rig.check_old_or_new();
            check(&rig);
            let _receiver = rig.receive();
            rig.converge();
            drop(note);
            if made > point {
                crashes += 1;
                break;
            }
            point = again.below(made.max(1));
        }
    }
    println!("{crashes} crashes of the receiver before one of its {calls} mutating calls");
    assert!(crashes * 10 >= points.len() * 8, "{crashes} of {}", points.len());
}

#[test]
fn c_01_a_receiver_killed_before_any_call_in_the_module() {
    let rig_flips = std::cell::RefCell::new(None);
    kill_receiver(
        seed(1),
        false,
        |rig| *rig_flips.borrow_mut() = Some(Flips::new(rig.src())),
        |_| rig_flips.borrow_mut().as_mut().unwrap().flip(),
    );
}

#[test]
fn c_01_a_receiver_killed_before_any_call_in_its_home() {
    let rig_flips = std::cell::RefCell::new(None);
    kill_receiver(
        seed(2),
        true,
        |rig| *rig_flips.borrow_mut() = Some(Flips::new(rig.src())),
        |_| rig_flips.borrow_mut().as_mut().unwrap().flip(),
    );
}

/// C-25: a file that arrives in part is kept and gone on with; whatever is kept, the end is right.
#[test]
fn c_25_a_receiver_killed_in_a_large_file() {
    const BYTES: usize = 9 << 20;
    let turn = std::cell::Cell::new(0);
    let write = |rig: &Rig| {
        turn.set(turn.get() + 1);
        let name = format!("large-{}", turn.get() % 2);
        let content = crate::flips::content(&name, turn.get(), BYTES);
        std::fs::write(rig.src().join("large"), content).unwrap();
    };
    kill_receiver(seed(3), false, write, write);
}

#[test]
fn c_01_a_sender_killed_before_any_call_in_its_home() {
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let _receiver = rig.receive();
    let home = rig.pair.path("home-s");
    let identity = driftless::daemon::home::Home::at(&home).identity_dir();
    driftless_certs::Identity::import(&identity, &rig.pair.sender.export_pem()).unwrap();
    let seed_once = |rig: &Rig| {
        let mut command = driftless(&home);
        let log = std::fs::File::create(rig.pair.path("sender.log")).unwrap();
        command
            .arg("seed")
            .arg(rig.src())
            .arg(rig.target())
            .stdout(Stdio::null())
            .stderr(log);
        command
    };
    assert!(seed_once(&rig).status().unwrap().success());
    rig.check_converged();
    let mut run = |rig: &mut Rig, kill_at: usize| {
        let calls = Arc::new(AtomicUsize::new(0));
        let (counted, home) = (calls.clone(), home.clone());
        flips.flip();
        rig.expect_source();
        let mut sender = Supervised::start(&mut seed_once(rig), move |call| {
            if call.is_in(&home) && counted.fetch_add(1, Ordering::Relaxed) == kill_at {
                return Verdict::Kill;
            }
            Verdict::Pass
        })
        .unwrap();
        let status = sender.wait();
        let made = calls.load(Ordering::Relaxed);
        assert!(status.success() || made > kill_at, "{status}");
        made
    };
    let calls = run(&mut rig, usize::MAX).max(run(&mut rig, usize::MAX));
    rig.check_converged();
    let points = points(calls, seed(4));
    let mut crashes = 0;
    for &point in &points {
        let _note = Note(format!("killed before call {point} of {calls}"));
        crashes += usize::from(run(&mut rig, point) > point);
        // The receiver lives on, and is taken over by the next run.
        assert!(seed_once(&rig).status().unwrap().success());
        rig.check_converged();
    }
    println!("{crashes} crashes of the sender before one of its {calls} mutating calls");
    assert!(crashes * 10 >= points.len() * 8, "{crashes} of {}", points.len());
}
