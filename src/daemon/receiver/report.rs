//! What a receiver tells of itself.

use super::*;

impl Shared {
    pub(super) fn status(&self, address: Option<SocketAddr>) -> ReceiverStatus {
        let slots = lock(&self.slots);
        let offered = self
            .modules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let modules = offered.iter().map(|module| {
            let sessions = slots
                .iter()
                .filter(|((name, _), _)| *name == module.name)
                .filter_map(|((_, path), slot)| match slot {
                    Slot::Idle(_) => None,
                    Slot::Taken(tenant) => Some(tenant.status.report(
                        path.to_string(),
                        tenant.peer.to_string(),
                        tenant.source.clone(),
                    )),
                })
                .collect();
            let publishing = slots
                .iter()
                .filter(|((name, _), _)| *name == module.name)
                .flat_map(|(_, slot)| match slot {
                    Slot::Idle(replica) => replica.publishing.reports(),
                    Slot::Taken(tenant) => tenant.status.publishing(),
                })
                .collect();
            ModuleStatus {
                name: module.name.clone(),
                path: module.path.display().to_string(),
                promoted_since: self.promoted_since(&module.name),
                sessions,
                keeping: self.kept_in(&module.name).report(),
                scrubs: self.scrubs.reports(&module.name),
                drift: self.drift.reports(&module.name),
                publishing,
            }
        });
        let identity = self.options.identity.fingerprint().to_string();
        let modules = modules.collect();
        ReceiverStatus {
            address,
            trees: self
                .offers
                .as_ref()
                .map_or_else(Vec::new, |offers| offers.trees()),
            pulls: lock(&self.pulls).iter().map(|(pull, _)| pull.report()).collect(),
            ..ReceiverStatus::new(identity, &self.options.home, self.options.listen, modules)
        }
    }
}
