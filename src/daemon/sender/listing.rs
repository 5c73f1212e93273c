//! What a receiver lists, put together from its messages: in the order of the names, and no more than it can have.
//!
//! Memory is taken here for what somebody else says. So a receiver may list what this mirror ever had twice over, and a fixed number
//! of entries beside; a directory of its disk, of which nothing is known here, has a limit of its own.

use super::reconcile::ReconcileError;
use crate::daemon::{Stop, waiting};
use crate::net::SenderLink;
use driftless_protocol::Name;
use driftless_protocol::message::{Row, ToSender};

/// Entries that a target may have beside those of the mirror, as far as they are listed.
const BESIDE_MAX: u64 = 20_000_000;
/// Entries of one directory of a target's disk.
const DIRECTORY_MAX: u64 = 10_000_000;

/// How many entries a receiver may list.
#[derive(Debug)]
pub struct Allowance {
    most: u64,
    left: u64,
}

impl Allowance {
    /// For all listings of a comparison, of a mirror that had so many entries. The target may have those that went, too, and some at
    /// two places.
    pub fn of_mirror(known: u64) -> Allowance {
        Allowance::of(known.saturating_mul(2).saturating_add(BESIDE_MAX))
    }

    /// For one directory of its disk.
    pub fn of_directory() -> Allowance {
        Allowance::of(DIRECTORY_MAX)
    }

    fn of(most: u64) -> Allowance {
        Allowance { most, left: most }
    }

    fn take(&mut self, entries: usize) -> Result<(), ReconcileError> {
        let left = self.left.checked_sub(entries as u64);
        self.left = left.ok_or(ReconcileError::TooMany(self.most))?;
        Ok(())
    }
}

/// One directory's rows, put together from as many messages as it takes. Ends when stopping is asked.
pub fn receive_listing(
    link: &SenderLink,
    stop: &Stop,
    allowance: &mut Allowance,
) -> Result<Vec<Row>, ReconcileError> {
    listing_from(allowance, || {
        match waiting::receive_or_stop(link.incoming(), stop) {
            Some(message) => Ok(message),
            None if stop.is_requested() => Err(ReconcileError::Stopped),
            None => Err(ReconcileError::Ended),
        }
    })
}

/// As [`receive_listing`], from messages that `next` gives.
pub fn listing_from(
    allowance: &mut Allowance,
    mut next: impl FnMut() -> Result<ToSender, ReconcileError>,
) -> Result<Vec<Row>, ReconcileError> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        match next()? {
            ToSender::Listing { rows: more, last } => {
                allowance.take(more.0.len())?;
                // A part that brings nothing, or a name again, would never have to end.
                let is_empty = !last && more.0.is_empty();
                if is_empty || !goes_on(rows.last().map(|row| &row.name), &more.0) {
                    return Err(ReconcileError::Violation);
                }
                rows.extend(more.0);
                if last {
                    return Ok(rows);
                }
            }
            // About ops that have ended: a withdrawn file's signature may still be coming in behind its outcome.
            ToSender::Progress(_)
            | ToSender::Ended(_)
            | ToSender::Need { .. }
            | ToSender::Signature { .. }
            | ToSender::Held { .. }
            | ToSender::Confirmed { .. }
            | ToSender::Failed { .. } => {}
            ToSender::ListingFailed(text) => return Err(ReconcileError::Unlisted(text.to_string())),
            _ => return Err(ReconcileError::Violation),
        }
    }
}

/// Whether these rows are in the order of their names, each above the last one before.
fn goes_on(before: Option<&Name>, rows: &[Row]) -> bool {
    let names = before.into_iter().chain(rows.iter().map(|row| &row.name));
    names.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::message::{Rows, Text};
    use driftless_protocol::{Attributes, Kind, ObjectId, TreeSum};

    fn row(name: &str) -> Row {
        Row {
            name: Name::new(name.as_bytes()).unwrap(),
            object: ObjectId(7),
            kind: Kind::File,
            attributes: Attributes::default(),
            size: 0,
            digest: None,
            below: TreeSum::default(),
            entries: 0,
        }
    }

    fn part(names: &[&str], last: bool) -> ToSender {
        let rows = Rows(names.iter().map(|name| row(name)).collect());
        ToSender::Listing { rows, last }
    }

    fn listed(most: u64, parts: Vec<ToSender>) -> Result<usize, String> {
        let mut parts = parts.into_iter();
        let next = || parts.next().ok_or(ReconcileError::Ended);
        let outcome = listing_from(&mut Allowance::of(most), next);
        outcome.map(|rows| rows.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_listing_comes_in_parts_with_other_messages_between() {
        let parts = vec![
            part(&["a", "b"], false),
            ToSender::SIGN_OF_LIFE,
            part(&["c"], false),
            part(&[], true),
        ];
        assert_eq!(listed(3, parts), Ok(3));
        assert_eq!(listed(0, vec![part(&[], true)]), Ok(0));
        let refused = vec![part(&["a"], false), ToSender::ListingFailed(Text::from("no"))];
        assert_eq!(listed(3, refused), Err("no".to_owned()));
    }

    #[test]
    fn no_part_repeats_or_brings_nothing() {
        for parts in [
            vec![part(&[], false), part(&[], true)],
            vec![part(&["b", "a"], true)],
            vec![part(&["a", "a"], true)],
            vec![part(&["a", "b"], false), part(&["b"], true)],
            vec![part(&["a"], false), ToSender::Changed],
        ] {
            let told = listed(9, parts).unwrap_err();
            assert!(told.contains("broke the protocol"), "{told}");
        }
    }

    /// Whoever lists without end is left as soon as it is more than can be, over all directories.
    #[test]
    fn an_endless_listing_is_left() {
        let mut allowance = Allowance::of(1_000);
        let mut taken = 0;
        let mut next = || {
            taken += 1;
            Ok(part(&[&format!("{taken:09}")], taken % 300 == 0))
        };
        let told = loop {
            if let Err(error) = listing_from(&mut allowance, &mut next) {
                break error.to_string();
            }
        };
        assert!(
            taken == 1_001 && told.contains("more than 1000 entries"),
            "{taken}: {told}"
        );
        assert!(
            Allowance::of_mirror(u64::MAX).most == u64::MAX
                && Allowance::of_mirror(5).most == BESIDE_MAX + 10
        );
    }
}
