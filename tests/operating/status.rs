//! How far a target is behind.

use crate::site::{Daemon, Site, until};

#[test]
fn the_status_tells_the_age_of_the_oldest_change() {
    let site = Site::new(&["src"]);
    let ((one, to_one), (two, to_two)) = (site.receiver("one"), site.receiver("two"));
    let file = site.path("status");
    site.configure(
        &(format!(
            "[settings]\nstatus-file = '{}'\nstatus-interval = '100ms'\n",
            file.display()
        ) + &site.mirror("www", "src", &[&to_one, &to_two], "")),
    );
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    let behind = |target: &str| site.sender("www", target)["behind"].clone();
    until("nothing is behind", || behind("/two")["oldest_ms"].is_null());
    let guards = site.sender("www", "/two")["protections"].clone();
    assert_eq!(
        (guards[0]["name"].as_str(), guards[0]["holds"].as_bool()),
        (Some("source-root"), Some(true)),
        "{guards}"
    );
    assert_eq!(
        (guards[1]["name"].as_str(), guards[1]["holds"].as_bool()),
        (Some("first-contact"), Some(false)),
        "{guards}"
    );

    // One change, while the target is only slow to answer.
    two.cut_off();
    let began = std::time::Instant::now();
    site.write("src/file", "1");
    site.write("src/second", "2");
    until("the target is behind", || {
        behind("/two")["entries"].as_u64() >= Some(2)
    });
    until("the change gets older", || {
        behind("/two")["oldest_ms"].as_u64() > Some(1_500)
    });
    let told = behind("/two");
    assert!(
        u128::from(told["oldest_ms"].as_u64().unwrap()) <= began.elapsed().as_millis() + 50,
        "{told}"
    );
    assert!(told["in_flight"].as_u64() >= Some(2), "{told}");
    assert!(behind("/one")["oldest_ms"].is_null(), "{told}");
    assert!(site.run("status", 0).0.contains("behind by "));
    until("the file has it", || {
        site.read("status")
            .is_some_and(|text| text.contains("behind by "))
    });
    two.come_back();
    until("nothing is behind any more", || {
        behind("/two")["oldest_ms"].is_null()
    });
    assert_eq!(behind("/two")["entries"], 0);

    // While a target is gone altogether, the age goes on from the first change that it lacks.
    drop(two);
    until("it is noticed", || {
        site.sender("www", "/two")["phase"] != "in-sync"
    });
    assert!(behind("/two")["oldest_ms"].is_null());
    site.write("src/third", "3");
    until("it counts", || behind("/two")["oldest_ms"].as_u64() > Some(1_000));
    assert!(behind("/two")["entries"].as_u64() >= Some(1));
    assert_eq!(daemon.stop(), Some(1));
    // The last text says how it ended, and no part of another stands beside it.
    assert!(site.read("status").unwrap().starts_with("driftless status at 20"));
    assert!(
        !std::fs::read_dir(site.path(".")).unwrap().any(|entry| entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains(".new-"))
    );

    // A daemon that was never in sync with it does not say that all is well.
    let _daemon = Daemon::start(&site, "daemon --json");
    until("how long it has tried counts", || {
        behind("/two")["oldest_ms"].as_u64() > Some(500)
    });
    drop(one);
}
