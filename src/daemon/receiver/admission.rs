//! Who may come, from where, and what they may do.

use super::*;

impl Shared {
    /// What a peer may do in a module now.
    pub(super) fn rights_now(&self, peer: &Fingerprint, module: &str) -> Standing {
        if self.options.allow.contains(peer) {
            return Standing::Has(Rights::ALL);
        }
        match TrustStore::open(&self.options.home.peers_file()) {
            Ok(trust) => match trust.allows(peer, module, SystemTime::now()) {
                Ok(rights) => Standing::Has(rights),
                Err(_) => Standing::HasNone,
            },
            Err(error) => {
                tracing::error!("{error}");
                Standing::Unknown
            }
        }
    }

    /// The module, and what the peer may do there. A peer without any right learns nothing.
    pub(super) fn authorised_module(
        &self,
        peer: &Fingerprint,
        remote: Option<IpAddr>,
        name: &ModuleName,
    ) -> Result<(Arc<ModuleOptions>, Rights), (CloseCode, String)> {
        let not_allowed = || (CloseCode::NotAllowed, "this peer is not allowed here".to_owned());
        let wanted = std::str::from_utf8(&name.0).map_err(|_| not_allowed())?;
        let mut rights = Rights::ALL;
        if !self.options.allow.contains(peer) {
            let trust = TrustStore::open(&self.options.home.peers_file()).map_err(|error| {
                tracing::error!("cannot find out what a peer may do: {error}");
                (CloseCode::Unable, guests::NOT_KNOWN.to_owned())
            })?;
            rights = trust.allows(peer, wanted, SystemTime::now()).map_err(|refusal| {
                tracing::warn!("{refusal}");
                not_allowed()
            })?;
        }
        let module = self.module(wanted).ok_or_else(|| {
            let announced = self.announced.read().unwrap_or_else(PoisonError::into_inner);
            if announced.iter().any(|name| name == wanted) {
                let text = format!("the module {name} cannot be used yet; the receiver's log says why");
                return (CloseCode::Unable, text);
            }
            (CloseCode::NoModule, format!("there is no module {name} here"))
        })?;
        if !may_come(&module, remote) {
            tracing::warn!(%peer, module = %module.name, "hosts-allow and hosts-deny keep out its address");
            return Err(not_allowed());
        }
        Ok((module, rights))
    }
}

/// Opens the endpoint.
pub(super) fn listen(
    options: &ReceiverOptions,
    modules: &Modules,
    offers: Option<Arc<Offers>>,
    runtime: &tokio::runtime::Handle,
) -> Result<ReceiverEndpoint, DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let link = LinkOptions {
        probes_size: offers.is_some(),
        ..options.link.clone()
    };
    // Trees are for receivers wherever they are.
    let (modules, offers_any) = (modules.clone(), offers.is_some());
    let admit: Admit = Arc::new(move |remote| {
        let modules = modules.read().unwrap_or_else(PoisonError::into_inner);
        offers_any || modules.is_empty() || modules.iter().any(|module| module.hosts.admit(remote))
    });
    let (allow, peers) = (options.allow.clone(), options.home.peers_file());
    let authorise: Authorise = Arc::new(move |peer: Fingerprint, alpn: Alpn| match alpn {
        // An invited peer is unknown by nature; it may say one thing, its secret.
        Alpn::Pair => Verdict::Allowed,
        Alpn::Mirror if allow.contains(&peer) => Verdict::Allowed,
        Alpn::Mirror => match TrustStore::open(&peers) {
            Ok(trust) => Verdict::of(trust.find(&peer).is_some()),
            Err(error) => {
                tracing::error!("cannot find out who may connect: {error}");
                Verdict::Unknown
            }
        },
        Alpn::Pull => match &offers {
            Some(offers) => offers.may_call(&peer),
            None => Verdict::Refused,
        },
    });
    let identity = match &options.identity {
        Own::Key(identity) => identity,
        Own::Apart(transport) => return Ok(ReceiverEndpoint::apart(transport, options.listen, authorise)),
    };
    let protocols = [ALPN_MIRROR, ALPN_PAIR, ALPN_PULL];
    let tls = receiver_config(identity, &protocols).map_err(|error| failed(&error))?;
    let secret = identity.derive_secret("driftless 2026-11 endpoint v1");
    ReceiverEndpoint::bind(runtime, tls, options.listen, &secret, &link, (admit, authorise))
        .map_err(|error| failed(&error))
}

/// Whether a module may be reached from an address. Who is in this process has none, and may.
pub(super) fn may_come(module: &ModuleOptions, remote: Option<IpAddr>) -> bool {
    remote.is_none_or(|remote| module.hosts.admit(remote))
}
