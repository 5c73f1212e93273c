//! The few things that a receiver does as root: it writes files for everybody, and gives them to their owners.

use super::Needs;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

pub(super) fn restrict(needs: &Needs) -> Result<(), String> {
    let failed = |errno: Errno| format!("cannot drop capabilities: {errno}");
    let kept = kept(needs);
    let present = capabilities(None).map_err(failed)?;
    // Without CAP_SETPCAP it fails, and without that nothing could come of the bounding set: nothing is executed here.
    for bit in (0..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        if !kept.contains(bit) {
            let _ = remove_capability_from_bounding_set(bit);
        }
    }
    // Kernels from before 4.3 have none.
    let _ = clear_ambient_capability_set();
    let left = CapabilitySets {
        effective: present.effective & kept,
        permitted: present.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, left).map_err(failed)
}

/// What a receiver may need.
pub(super) fn kept(needs: &Needs) -> CapabilitySet {
    let mut kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP;
    if needs.devices {
        kept |= CapabilitySet::MKNOD;
    }
    if needs.privileged_xattrs {
        kept |= CapabilitySet::SYS_ADMIN | CapabilitySet::MAC_ADMIN;
    }
    if needs.low_port {
        kept |= CapabilitySet::NET_BIND_SERVICE;
    }
    kept
}
