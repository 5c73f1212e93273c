//! `driftless verify --divergence`: what each side did since both were last equal.

use super::text::count;
use super::{DIFFERENT, DONE, output};
use crate::daemon::divergence::{Change, Divergence};
use crate::daemon::status::STATUS_VERSION;
use driftless_protocol::message::Diverged;
use serde_json::json;

/// Tells it, and gives the exit status: whether there is anything to tell.
pub(super) fn tell(source: &str, target: &str, found: &Divergence, as_json: bool) -> u8 {
    let both = found.on_both();
    if as_json {
        let side = |changes: &[Change]| {
            let listed = changes.iter().map(
                |Change { path, what, at }| json!({"path": path.to_string(), "what": word(*what), "at": at.seconds()}),
            );
            json!({"changes": listed.collect::<Vec<_>>(), "newest": newest(changes).map(|change| change.at.seconds())})
        };
        let both: Vec<_> = both.iter().map(|path| path.to_string()).collect();
        let common = found.common.map(
            |cursor| json!({"incarnation": format!("{:032x}", cursor.incarnation), "sequence": cursor.sequence}),
        );
        output::json(&json!({
            "version": STATUS_VERSION,
            "source": source,
            "target": target,
            "common": common,
            "here": side(&found.here),
            "there": side(&found.there),
            "both": both,
        }));
    } else {
        output::line(&match found.common {
            Some(cursor) => format!("both were equal at {} of the journal", cursor.sequence),
            None => "no point is known at which both were equal: listed is what is not as the mirror left it"
                .to_owned(),
        });
        for (side, changes) in [("here", &found.here), ("there", &found.there)] {
            for change in changes {
                let conflict = if both.contains(&&change.path) {
                    "  on both sides"
                } else {
                    ""
                };
                output::line(&format!(
                    "{side:<5}  {:<10}  {}  {}{conflict}",
                    word(change.what),
                    time(change),
                    change.path
                ));
            }
        }
        output::line(&sentence(source, &found.here));
        output::line(&sentence(target, &found.there));
    }
    match found.here.is_empty() && found.there.is_empty() {
        true => DONE,
        false => DIFFERENT,
    }
}

fn newest(changes: &[Change]) -> Option<&Change> {
    changes.iter().max_by_key(|change| change.at)
}

fn sentence(side: &str, changes: &[Change]) -> String {
    let Some(newest) = newest(changes) else {
        return format!("{side}: nothing was changed");
    };
    let number = count(
        u64::try_from(changes.len()).unwrap_or(u64::MAX),
        "change",
        "changes",
    );
    format!(
        "{side}: {number}, the newest at {}: {}",
        time(newest),
        newest.path
    )
}

/// In words for people, and in JSON.
fn word(what: Diverged) -> &'static str {
    match what {
        Diverged::Made => "made",
        Diverged::Changed => "changed",
        Diverged::Attributes => "attributes",
        Diverged::Removed => "removed",
    }
}

/// When, in UTC: the clocks of two machines are compared, if at all, in one zone.
fn time(change: &Change) -> String {
    jiff::Timestamp::from_second(change.at.seconds())
        .unwrap_or_default()
        .to_string()
}
