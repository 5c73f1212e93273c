//! What the two processes are given, and what they run.

use super::*;
use crate::engine::path_pattern::PathPattern;

/// The receiver's process: one connection after the other.
pub(super) fn receive(options: ReceiverOptions) -> String {
    let receiver = match receiver::Simulated::open(options) {
        Ok(receiver) => receiver,
        Err(error) => return error.to_string(),
    };
    let Some((_, services)) = services::<Services>() else {
        return "not in a simulation".to_owned();
    };
    loop {
        wait(|| !services.exchange().accepted.is_empty(), None);
        let link = services.exchange().accepted.pop_front();
        if let Some(link) = link {
            receiver.serve(&link);
        }
    }
}

pub(super) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().unwrap())
}

/// Who the sender and the receiver are.
pub(super) fn identities() -> &'static (Identity, Identity) {
    static IDENTITIES: OnceLock<(Identity, Identity)> = OnceLock::new();
    IDENTITIES.get_or_init(|| (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap()))
}

pub(super) fn receiver_options(
    home: Home,
    target: std::path::PathBuf,
    publish: Vec<PathPattern>,
) -> ReceiverOptions {
    let (sender, receiver) = identities();
    ReceiverOptions {
        home,
        identity: receiver.clone().into(),
        modules: vec![ModuleOptions {
            name: "module".to_owned(),
            path: target,
            xattrs: XattrClasses::NONE,
            devices: false,
            keeping: Default::default(),
            preallocate: false,
            publish,
            inplace: false,
            hosts: Default::default(),
            kept_as: Default::default(),
            previous: None,
            upkeep: Default::default(),
        }],
        machine: None,
        listen: ([127, 0, 0, 1], 0).into(),
        allow: vec![sender.fingerprint()],
        link: LinkOptions::default(),
        delta_engine: Default::default(),
    }
}

pub(super) fn sender_options(home: Home, source: std::path::PathBuf) -> SenderOptions {
    let (sender, receiver) = identities();
    SenderOptions {
        mirror: None,
        home,
        target: TargetOptions {
            display: "simulated::module".to_owned(),
            host: "simulated".to_owned(),
            port: 1,
            fingerprint: receiver.fingerprint(),
            module: "module".to_owned(),
            path: RelPath::root(),
        },
        identity: sender.clone(),
        source,
        follow: true,
        deletes: Deletes::Always,
        delete_limit: None,
        approvals: None,
        requests: None,
        quiet: None,
        delta_engine: None,
        audit: false,
        gate: Default::default(),
        walks: Default::default(),
        transfers: Default::default(),
        readings: None,
        watch: WatchOptions {
            choice: WatchChoice::Poll,
            ..WatchOptions::default()
        },
        pending: Default::default(),
        initial: None,
        sparing: Default::default(),
        whole_files: false,
        leaves_root: false,
        taken_as: Default::default(),
        large_files: None,
        append_only: Default::default(),
        filter: crate::engine::filter::Filter::everything(),
        compare: Default::default(),
        look_again: false,
        gives_up: false,
        accept_root: false,
        links: Default::default(),
        modes: Default::default(),
        owners: Default::default(),
        link: LinkOptions::default(),
    }
}
