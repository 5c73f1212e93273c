//! Why a link could not be emulated, with what to do about it.

use std::io;

use super::SpecError;

/// Why a link could not be emulated.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The specification is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The privilege to make network namespaces or devices is missing.
    #[error(
        "cannot {what}: {source}. An emulated link needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root (for \
         example with sudo; in a container add --cap-add SYS_ADMIN --cap-add NET_ADMIN), or choose the link \
         `loop`, which needs no privilege"
    )]
    NotPermitted {
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no TUN driver.
    #[error(
        "cannot open /dev/net/tun: {0}. An emulated link needs the kernel's TUN driver: load it with `modprobe \
         tun` (in a container add --device /dev/net/tun), or choose the link `loop`, which needs no driver"
    )]
    NoTun(io::Error),
    /// The kernel has no network namespaces.
    #[error(
        "this kernel has no network namespaces ({0}); an emulated link needs one built with CONFIG_NET_NS. \
         Choose the link `loop`, which needs none"
    )]
    NoNamespaces(io::Error),
    /// Anything else the system refused.
    #[error("cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The congestion control asked for does not exist here.
    #[error(
        "this kernel has no TCP congestion control `{wanted}`; available are: {available} (others may be \
         modules: `modprobe tcp_{wanted}`)"
    )]
    CongestionControl {
        /// The name asked for.
        wanted: String,
        /// The names the kernel has.
        available: String,
    },
    /// A setting of a namespace on a link that has none.
    #[error("the link `loop` uses this machine's own network, whose settings the bench leaves alone")]
    LoopSettings,
    /// The emulator stopped in the middle of a run.
    #[error("the link emulator failed while running: {0}; what was measured is void")]
    Relay(String),
}

impl LinkError {
    pub(super) fn system(what: impl Into<String>, source: io::Error) -> LinkError {
        LinkError::System {
            what: what.into(),
            source,
        }
    }

    /// Sorts out the errors that mean a missing privilege.
    pub(super) fn privileged(what: &'static str, source: io::Error) -> LinkError {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => LinkError::NotPermitted { what, source },
            _ => LinkError::system(what, source),
        }
    }
}
