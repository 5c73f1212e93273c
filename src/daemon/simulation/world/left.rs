//! Trees that differ before anybody mirrors them, and a mirror that leaves what differed as it was (`--initial skip`).

use super::super::tree::{Tree, What};
use std::fs;
use std::io;
use std::path::Path;

/// A directory that both have and nobody edits.
pub(in super::super) const LEFT: &str = "left";
/// What differs in it.
const DIFFERS: &str = "left/differs";
const ONLY_HERE: &str = "left/only-here";
const ONLY_THERE: &str = "left/only-there";
/// What the target has.
const THERE: &[u8] = b"what the target had";

/// Makes both trees differ.
pub(super) fn fill(source: &Path, target: &Path) -> io::Result<()> {
    for root in [source, target] {
        fs::create_dir(root.join(LEFT))?;
    }
    for name in [DIFFERS, ONLY_HERE] {
        fs::write(source.join(name), "what the source had, and never sends")?;
    }
    for name in [DIFFERS, ONLY_THERE] {
        fs::write(target.join(name), THERE)?;
    }
    Ok(())
}

/// Takes what was left as it was out of both trees, and says if it was not. `lasting` is a file that only the source has.
pub(super) fn take_out(source: &mut Tree, target: &mut Tree, lasting: &str) -> Result<(), String> {
    for name in [DIFFERS, ONLY_THERE] {
        match target.get(Path::new(name)).map(|node| &node.what) {
            Some(What::File(content)) if **content == *THERE => {}
            other => return Err(format!("{name} was to be left as it is, and is {other:?}")),
        }
    }
    for name in [ONLY_HERE, lasting] {
        if target.contains_key(Path::new(name)) {
            return Err(format!("{name} was to be left out, and is there"));
        }
    }
    for tree in [source, target] {
        tree.retain(|path, _| !path.starts_with(LEFT) && path.as_os_str() != lasting);
    }
    Ok(())
}
