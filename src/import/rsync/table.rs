//! All options of rsync that are known, and what becomes of each.

use super::Effect::{Always, Differs, Dropped, Ours, Perhaps, Replaced, Stops, Theirs, Unless};
use super::{Effect, Otherwise, RsyncOption, Rule};

const fn key(name: &'static str, short: Option<char>, effect: Effect) -> RsyncOption {
    RsyncOption {
        name,
        short,
        takes_value: false,
        is_key: true,
        effect,
    }
}

const fn value_key(name: &'static str, short: Option<char>, effect: Effect) -> RsyncOption {
    RsyncOption {
        takes_value: true,
        ..key(name, short, effect)
    }
}

const fn word(name: &'static str, short: Option<char>, effect: Effect) -> RsyncOption {
    RsyncOption {
        is_key: false,
        ..key(name, short, effect)
    }
}

const fn value_word(name: &'static str, short: Option<char>, effect: Effect) -> RsyncOption {
    RsyncOption {
        is_key: false,
        takes_value: true,
        ..key(name, short, effect)
    }
}

const GROWS: &str = "what is appended is all that travels, after the rest was compared here; `append-only` for files that only grow";
const ONE_STEP: &str =
    "a file is put in place in one step when it is complete; the target needs room for both versions";
const NO_SHELL: &str = "there is no remote shell: keys of both ends are exchanged once, see `pair`";
const OUTPUT: &str = "`driftless status` and the log (`driftless daemon -v`)";
const OLD_VERSIONS: Otherwise = Otherwise::Stops(
    "old versions were kept on the target; driftless would replace and delete without keeping them",
);
const LINKS_FOLLOWED: Otherwise = Otherwise::Stops(
    "the target has what links lead to; driftless mirrors links as links, and would replace that by them",
);
const OWNERS: &str = "owner and group are carried all the same where both ends run as root (the right `no-owner` on the receiver \
    declines them)";
const TIMES: &str = "times are carried all the same";
const DELETES: &str =
    "deletions come after what takes the place of what is deleted, and wait for no error elsewhere";
const NEWER: Otherwise = Otherwise::Stops(
    "files that are newer on the target were kept; driftless would replace them by those of the source",
);
const NOT_THERE: Otherwise = Otherwise::Stops("what the target lacks was not made; driftless would make it");
const ONLY_NEW: Otherwise =
    Otherwise::Stops("what the target has was never changed; driftless would change it");
const BY_DIGEST: Otherwise = Otherwise::Replaced(
    "what was sent is known by its digest; `driftless verify` reads both sides and compares",
);

/// All that are known.
pub(in crate::import) const OPTIONS: &[RsyncOption] = &[
    key(
        "acls",
        Some('A'),
        Always("ACLs are carried all the same, where both file systems have them"),
    ),
    key("append", None, Replaced(GROWS)),
    key("append_verify", None, Replaced(GROWS)),
    key(
        "archive",
        Some('a'),
        Always("what it stands for is carried all the same"),
    ),
    key("backup", Some('b'), Theirs("backup", OLD_VERSIONS)),
    value_key("backup_dir", None, Theirs("backup-dir", OLD_VERSIONS)),
    value_key("binary", None, Dropped("no program is run")),
    value_key("bwlimit", None, Ours("bwlimit")),
    key("checksum", Some('c'), Perhaps("checksum", BY_DIGEST)),
    value_key("chmod", None, Ours("chmod")),
    value_key("chown", None, Ours("chown")),
    key("compress", Some('z'), Ours("compress")),
    key(
        "copy_dirlinks",
        Some('k'),
        Perhaps("copy-dirlinks", LINKS_FOLLOWED),
    ),
    key("copy_links", Some('L'), Perhaps("copy-links", LINKS_FOLLOWED)),
    key("cvs_exclude", Some('C'), Ours("cvs-exclude")),
    key(
        "dry_run",
        Some('n'),
        Stops("lsyncd changed nothing on the target; driftless would"),
    ),
    key("executability", Some('E'), Always("all permissions are carried")),
    key("existing", None, Perhaps("existing", NOT_THERE)),
    key("group", Some('g'), Always(OWNERS)),
    value_key("groupmap", None, Ours("groupmap")),
    key(
        "hard_links",
        Some('H'),
        Always("hard links are carried all the same"),
    ),
    key("ignore_times", Some('I'), Perhaps("ignore-times", BY_DIGEST)),
    key("inplace", None, Replaced(ONE_STEP)),
    key(
        "ipv4",
        Some('4'),
        Dropped("the address decides that the receiver was paired with"),
    ),
    key(
        "ipv6",
        Some('6'),
        Dropped("the address decides that the receiver was paired with"),
    ),
    key(
        "keep_dirlinks",
        Some('K'),
        Stops("links to directories on the target were kept; driftless would replace them by directories"),
    ),
    key("links", Some('l'), Unless("no-links")),
    key(
        "omit_dir_times",
        Some('O'),
        Differs("times of directories are carried; being in sync includes them"),
    ),
    key(
        "omit_link_times",
        Some('J'),
        Differs("times of links are carried; being in sync includes them"),
    ),
    key("one_file_system", Some('x'), Ours("one-file-system")),
    key("owner", Some('o'), Always(OWNERS)),
    value_key("password_file", None, Replaced(NO_SHELL)),
    key("perms", Some('p'), Always("modes are carried all the same")),
    key("protect_args", Some('s'), Dropped("no argument passes a shell")),
    key(
        "prune_empty_dirs",
        Some('m'),
        Differs("empty directories are mirrored, too"),
    ),
    key(
        "quiet",
        Some('q'),
        Dropped("only what went wrong and milestones are told"),
    ),
    value_key("rsh", Some('e'), Replaced(NO_SHELL)),
    value_key("rsync_path", None, Replaced(NO_SHELL)),
    key(
        "sparse",
        Some('S'),
        Always("blocks of zeros become holes all the same"),
    ),
    value_key("suffix", None, Theirs("suffix", OLD_VERSIONS)),
    value_key(
        "temp_dir",
        Some('T'),
        Replaced("files are staged without a name where they go to, and put in place in one step"),
    ),
    value_key(
        "timeout",
        None,
        Perhaps(
            "timeout",
            Otherwise::Replaced("a connection that is silent is noticed and made again"),
        ),
    ),
    key("times", Some('t'), Always(TIMES)),
    key("update", Some('u'), Perhaps("update", NEWER)),
    value_key("usermap", None, Ours("usermap")),
    key("verbose", Some('v'), Replaced(OUTPUT)),
    key(
        "whole_file",
        Some('W'),
        Dropped("deltas are used for large files where they pay"),
    ),
    key(
        "xattrs",
        Some('X'),
        Always("extended attributes are carried all the same, where both file systems have them"),
    ),
    // Words of `_extra`.
    word("recursive", Some('r'), Always("directories are always entered")),
    word(
        "devices",
        None,
        Always("devices are carried where both ends run as root"),
    ),
    word("specials", None, Always("FIFOs are carried all the same")),
    word(
        "devices_and_specials",
        Some('D'),
        Always("devices are carried where both ends run as root"),
    ),
    value_word("exclude", None, Effect::Rule(Rule::Exclude)),
    value_word("include", None, Effect::Rule(Rule::Include)),
    value_word("exclude_from", None, Effect::Rule(Rule::ExcludeFrom)),
    value_word("include_from", None, Effect::Rule(Rule::IncludeFrom)),
    value_word("filter", Some('f'), Effect::Rule(Rule::Filter)),
    word("delete", None, Effect::Rule(Rule::Delete)),
    word("del", None, Effect::Rule(Rule::Delete)),
    word("delete_before", None, Effect::Rule(Rule::Delete)),
    word("delete_during", None, Effect::Rule(Rule::Delete)),
    word("delete_delay", None, Effect::Rule(Rule::Delete)),
    word("delete_after", None, Effect::Rule(Rule::Delete)),
    word("delete_excluded", None, Effect::Rule(Rule::DeleteExcluded)),
    word("dir_filters", Some('F'), Ours("dir-filters")),
    word("from0", Some('0'), Ours("from0")),
    value_word("min_size", None, Ours("min-size")),
    value_word("max_size", None, Ours("max-size")),
    value_word("max_delete", None, Ours("max-delete")),
    word("numeric_ids", None, Ours("numeric-ids")),
    word("safe_links", None, Ours("safe-links")),
    word(
        "copy_unsafe_links",
        None,
        Perhaps("copy-unsafe-links", LINKS_FOLLOWED),
    ),
    word("size_only", None, Perhaps("size-only", BY_DIGEST)),
    value_word("modify_window", Some('@'), Perhaps("modify-window", BY_DIGEST)),
    word("ignore_existing", None, Perhaps("ignore-existing", ONLY_NEW)),
    word("ignore_non_existing", None, Perhaps("existing", NOT_THERE)),
    value_word("compress_level", None, Ours("compress")),
    value_word(
        "contimeout",
        None,
        Perhaps(
            "contimeout",
            Otherwise::Replaced("a receiver that does not answer is tried again"),
        ),
    ),
    word("fsync", None, Always("what is in sync is on stable storage")),
    word("ignore_errors", None, Dropped(DELETES)),
    word(
        "force",
        None,
        Dropped("a directory gives way to what replaces it, unless the filter protects something in it"),
    ),
    word(
        "partial",
        None,
        Dropped("a large file that was cut off goes on where it stopped"),
    ),
    value_word(
        "partial_dir",
        None,
        Dropped("a large file that was cut off goes on where it stopped"),
    ),
    word(
        "partial_progress",
        Some('P'),
        Dropped("a large file that was cut off goes on where it stopped"),
    ),
    word(
        "no_whole_file",
        None,
        Dropped("deltas are used for large files where they pay"),
    ),
    word(
        "delay_updates",
        None,
        Differs("each file is put in place when it is complete"),
    ),
    word(
        "fuzzy",
        Some('y'),
        Dropped("what moved, or is a copy of another file there, is not sent"),
    ),
    word("secluded_args", None, Dropped("no argument passes a shell")),
    word("inc_recursive", None, Dropped("the tree is walked by itself")),
    word("no_inc_recursive", None, Dropped("the tree is walked by itself")),
    word("mkpath", None, Dropped("directories below a module are made")),
    word("open_noatime", None, Dropped("always, where the process may")),
    word("progress", None, Replaced(OUTPUT)),
    word("stats", None, Replaced(OUTPUT)),
    word("itemize_changes", Some('i'), Replaced(OUTPUT)),
    word("human_readable", Some('h'), Replaced(OUTPUT)),
    value_word("out_format", None, Replaced(OUTPUT)),
    value_word("log_file", None, Replaced(OUTPUT)),
    value_word("log_file_format", None, Replaced(OUTPUT)),
    value_word("info", None, Replaced(OUTPUT)),
    value_word("debug", None, Replaced(OUTPUT)),
    value_word(
        "skip_compress",
        None,
        Dropped("a sample of each file says whether it shrinks"),
    ),
    value_word("compress_choice", None, Dropped("compression is zstd")),
    value_word("checksum_choice", None, Dropped("contents are BLAKE3")),
    value_word(
        "block_size",
        Some('B'),
        Dropped("it follows the size of the file"),
    ),
    value_word("port", None, Replaced(NO_SHELL)),
    value_word(
        "address",
        None,
        Dropped("the system chooses where connections come from"),
    ),
    value_word("sockopts", None, Dropped("QUIC sets what it needs")),
    word(
        "remove_source_files",
        None,
        Stops("the source was emptied; driftless never changes its source"),
    ),
    word("relative", Some('R'), Stops("paths on the target were others")),
    word("dirs", Some('d'), Stops("directories were not entered")),
    word(
        "munge_links",
        None,
        Stops("links on the target were others than here"),
    ),
    word(
        "fake_super",
        None,
        Stops("owners and devices were kept in attributes, which driftless cannot read"),
    ),
];
