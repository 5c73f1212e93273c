//! What is left as it is: `--ignore-existing`, `--existing`, `--update`.

use super::Survey;
use crate::fs::Stat;
use driftless_protocol::Kind;
use driftless_protocol::message::Row;

impl Survey<'_> {
    /// Whether an entry that differs from what the target has at its place, if anything, is left as it is there.
    pub(super) fn spares(&self, kind: Kind, stat: &Stat, row: Option<&Row>) -> bool {
        let sparing = self.options.sparing;
        let Some(row) = row else {
            return sparing.missing;
        };
        let are = |wanted: Kind| kind == wanted && row.kind == wanted;
        (sparing.existing && !are(Kind::Directory))
            || (sparing.newer && are(Kind::File) && row.attributes.mtime > stat.attributes.mtime)
    }
}
