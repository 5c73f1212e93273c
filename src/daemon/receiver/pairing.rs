//! Strangers with a code, who become peers.

use super::*;

impl Shared {
    pub(super) fn pair(&self, mut link: PairLink) {
        let peer = link.peer();
        let Some(request) = link.request() else { return };
        let invites = Invites::open(&self.options.home.invites_dir());
        let outcome = invites.redeem(&Secret::from_bytes(request.secret), SystemTime::now());
        let grant = match outcome {
            Ok(invite) => invite.grant,
            Err(error) => {
                tracing::warn!(%peer, "pairing refused: {error}");
                return link.refuse(match error {
                    RedeemError::Expired => "the code has expired: make a new one with `driftless invite`",
                    _ => "the code is wrong or was used before: make a new one with `driftless invite`",
                });
            }
        };
        let module = grant.module.clone();
        let is_tree = grant.rights == Rights::PULL;
        let is_kept_out = |module: Arc<ModuleOptions>| !may_come(&module, link.remote_address());
        if !is_tree && self.module(&module).is_some_and(is_kept_out) {
            tracing::warn!(%peer, module, "pairing refused: hosts-allow and hosts-deny keep out its address");
            return link.refuse("this address is not allowed here, and the code is used up: make a new one with `driftless invite`");
        }
        match self.trust(peer, &request.name.to_string(), grant) {
            Ok(()) => {
                tracing::info!(%peer, module, "paired");
                let name = self.options.identity.fingerprint().to_string();
                let reply = PairReply {
                    module: ModuleName(module.into_bytes()),
                    name: name.as_str().into(),
                    is_tree,
                };
                link.reply(&reply);
            }
            Err(error) => {
                tracing::error!("cannot store the new peer: {error}");
                link.refuse("the receiver could not store the new peer; its log says why");
            }
        }
    }

    fn trust(&self, peer: Fingerprint, name: &str, grant: Grant) -> Result<(), driftless_certs::TrustError> {
        let mut trust = TrustStore::open(&self.options.home.peers_file())?;
        let added = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let name = trust.free_name(name);
        let modules = vec![grant];
        trust.add(Peer {
            name,
            fingerprint: peer,
            modules,
            added,
            expires: None,
            address: None,
        })?;
        Ok(())
    }
}
