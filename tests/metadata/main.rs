//! Metadata: what rsync -aHAXS carries, judged by system calls of the test's own and by rsync.

mod device_contents;
mod fake_super;
mod followed;
mod links;
mod mirror;
mod modes;
mod names;
mod objects;
mod owners;
mod policy;
mod sparse;
mod tree;
mod values;
mod verify;
mod xattrs;

#[path = "../support/mod.rs"]
mod support;

/// What `verify` finds, by nobody's mirror.
fn compared(options: &driftless::daemon::SenderOptions) -> driftless::daemon::verify::VerifyReport {
    use driftless::daemon::verify::{How, progress_file, run};
    let how = How {
        rate: None,
        restart: false,
        progress: progress_file(options),
        settle: None,
        repair: None,
        stop: &driftless::daemon::Stop::default(),
    };
    run(options, &how, &support::runtime(), &driftless::daemon::Silent).unwrap()
}

/// Both sides are equal, by `verify`.
#[track_caller]
fn assert_verified(pair: &support::Pair) {
    let receiver = pair.receive();
    let options = pair.sender_options(receiver.address(), false);
    let report = compared(&options);
    receiver.stop();
    assert!(
        report.differences.is_empty() && report.unreadable.is_empty(),
        "{report:?}"
    );
}
