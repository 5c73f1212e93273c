//! A connection of a sender, from its opening to its end.

use super::*;

/// What peers are told that ask for a name of ours.
pub(super) const RESERVED: &str = "names that begin with .driftless are the receiver's own";

/// Not an offence: who slept, or whose network failed it, may come again.
const TOO_LATE: &str = "no opening came in time";

impl Shared {
    pub(super) fn serve(self: &Arc<Self>, link: &ReceiverLink) {
        let peer = link.peer();
        let deadline = Instant::now() + self.options.link.hello_timeout;
        let mut owners = Vec::new();
        let open = loop {
            match waiting::receive(link.incoming(), Some(deadline)) {
                Some(ToReceiver::Open(open)) => break open,
                Some(ToReceiver::Owners(_)) if Instant::now() >= deadline => {
                    return link.close(CloseCode::Limit, TOO_LATE);
                }
                Some(ToReceiver::Owners(rows)) if owners.len() + rows.0.len() <= OWNERS_TOTAL_MAX => {
                    owners.extend(rows.0);
                }
                Some(ToReceiver::Owners(_)) => return link.close(CloseCode::Limit, "too many owners"),
                Some(_) => {
                    return link.close(CloseCode::Violation, "the first message was not an opening");
                }
                None => return link.close(CloseCode::Limit, TOO_LATE),
            }
        };
        if let Err((code, text)) = self.serve_opened(link, &open, &owners) {
            tracing::warn!(%peer, remote = %link.remote(), "refused: {text}");
            link.close(code, &text);
        }
    }

    fn serve_opened(
        self: &Arc<Self>,
        link: &ReceiverLink,
        open: &Open,
        owners: &[OwnerRow],
    ) -> Result<(), (CloseCode, String)> {
        let peer = link.peer();
        if open.path.names().iter().any(Name::is_reserved) {
            return Err((CloseCode::NotAllowed, RESERVED.to_owned()));
        }
        let (module, rights) = self.authorised_module(&peer, link.remote_address(), &open.module)?;
        rights::check_purpose(rights, open.purpose)
            .map_err(|text| (CloseCode::NotAllowed, text.to_owned()))?;
        let _seat = self.guests.seat(peer, &module.name, rights, link.handle());
        if open.purpose == Purpose::Forget {
            // With what is known of the module its promotion would go.
            self.check_fence(&module)?;
            return self.forget(link, open, &module);
        }
        if open.purpose == Purpose::Divergence {
            return self.tell_divergence(link, &module, open);
        }
        if open.purpose != Purpose::Mirror {
            let doubts = |paths: &[RelPath]| {
                self.open_bound(link, open, &module)?;
                let found = self.look_at(&module.name, &open.path, paths, How::Doubt, &self.stop);
                found.map(|found| found.changed.len() as u64)
            };
            return verify::serve(link, &module, rights, open, &doubts);
        }
        self.serve_mirror(link, open, owners, &module, rights)
    }

    /// Serves a connection for mirroring into a module, of a peer that has rights there.
    pub(super) fn serve_mirror(
        self: &Arc<Self>,
        link: &ReceiverLink,
        open: &Open,
        owners: &[OwnerRow],
        module: &Arc<ModuleOptions>,
        rights: Rights,
    ) -> Result<(), (CloseCode, String)> {
        let peer = link.peer();
        self.check_fence(module)?;
        let place = place_of(module, &open.path);
        let mut relays = open.upstream.0.clone();
        relays.push(Relay {
            peer: *self.options.machine.unwrap_or(peer).as_bytes(),
            source: open.source.clone(),
        });
        let own = self
            .options
            .machine
            .unwrap_or_else(|| self.options.identity.fingerprint());
        // One name of a directory is not the directory: what is beside it may be a target.
        let others = relays.len() - usize::from(open.carried.leaves_root);
        if let Some(source) = upstream::circle(&own, &place, &relays[..others]) {
            let text = format!(
                "a circle of mirrors: what would come to {} comes from {source} on the same machine; end the mirror of \
                 one of them",
                place.display()
            );
            return Err((CloseCode::Circle, text));
        }
        let key = (module.name.clone(), open.path.clone());
        let status = Arc::new(SessionStatus::named(
            module.name.clone(),
            &open.path,
            peer.to_string(),
        ));
        let seen = status.clone();
        let source = open.source.to_string();
        let (looks, looked) = crossbeam_channel::bounded(LOOKS_MAX);
        let tenant = Tenant {
            peer,
            mirror: open.mirror,
            incarnation: open.incarnation,
            source,
            status: status.clone(),
            link: link.handle(),
            looks,
        };
        let (mut replica, is_new) = self.take(&key, module, tenant, open.recheck)?;
        if is_new {
            self.look_after(module, &open.path, &replica.window);
        }
        let told = || (module.name.clone(), peer.to_string());
        let (name, fingerprint) = told();
        events::publish(
            None,
            What::SenderConnected {
                module: name,
                peer: fingerprint,
            },
        );
        let state = self.options.home.module_dir(&module.name, &open.path);
        let mut incoming = upstream::Incoming::begin(state, &module.name, &place, &relays);
        if let Err(error) = &incoming {
            tracing::warn!("cannot write down where {} comes from: {error}", place.display());
        }
        let engine = open.engine.map_or(self.options.delta_engine, Engine::from);
        let before = replica.cursor().unwrap_or_default();
        // Again, now that whoever promotes the module sees this session.
        let asks = self
            .check_fence(module)
            .and_then(|()| self.must_ask(&module.name, &open.path));
        let demotion = asks.as_ref().ok().copied().flatten();
        let began = asks.and_then(|asks| {
            let opened = begin(&mut replica, open, owners, peer, module, rights)?;
            Ok(Opened {
                demoted: asks.is_some(),
                ..opened
            })
        });
        let outcome = began.and_then(|opened| {
            let _ = link.control().send(ToSender::Opened(opened));
            tracing::info!(%peer, module = %module.name, "a sender is connected");
            Session::run(
                link,
                &mut replica,
                status,
                open.incarnation,
                engine,
                rights,
                looked,
            )
            .map_err(|error| (error.close_code(), error.to_string()))
        });
        if let Some(demotion) = demotion.filter(|_| replica.cursor().is_ok_and(|cursor| cursor != before)) {
            self.note_in_sync(&module.name, &open.path, demotion);
        }
        let left = match link.ended() {
            Some(LinkEnd::Closed {
                code, by_peer: true, ..
            }) => Some(code),
            _ => None,
        };
        if left == Some(CloseCode::Equal)
            && let Ok(Some(cursor)) = replica.cursor()
        {
            seen.tell_in_sync(cursor.sequence);
        }
        // Before somebody who waits for this session asks where the content comes from.
        if let Ok(incoming) = &mut incoming
            && matches!(left, Some(CloseCode::Done | CloseCode::Equal))
        {
            incoming.note_left();
        }
        drop(incoming);
        if matches!(outcome, Err((CloseCode::Unable, _))) {
            // A database takes nothing more after a write that failed, and nobody knows what reached the disk. The next
            // connection opens everything anew: that walks the tree and flushes it.
            drop(replica);
            lock(&self.slots).remove(&key);
        } else {
            // A session that broke off may have left the sum out of step with the catalog.
            if outcome.is_err()
                && let Err(error) = replica.recount()
            {
                tracing::error!("{error}");
            }
            self.put_back(key, module, replica);
        }
        self.released.notify_all();
        let (name, fingerprint) = told();
        events::publish(
            None,
            What::SenderDisconnected {
                module: name,
                peer: fingerprint,
            },
        );
        if outcome.is_ok() {
            tracing::info!(%peer, module = %module.name, "the connection ended");
        }
        outcome
    }
}

/// Checks the binding of a module path and answers the opening.
fn begin(
    replica: &mut Replica,
    open: &Open,
    owners: &[OwnerRow],
    peer: Fingerprint,
    module: &ModuleOptions,
    rights: Rights,
) -> Result<Opened, (CloseCode, String)> {
    let unable = |error: &dyn std::fmt::Display| (CloseCode::Unable, error.to_string());
    let taken = rights::carried(module, rights);
    let carried = open.carried.common(replica.can_carry()).common(taken);
    let may_delete = rights.has(Right::Delete);
    let binding = replica.binding().map_err(|error| unable(&error))?;
    let (binding, other) = match binding {
        Some(other) if other.mirror != open.mirror => (None, Some(other)),
        binding => (binding, None),
    };
    let is_same_source =
        |other: &Binding| other.peer == *peer.as_bytes() && other.source == open.source.to_string();
    if let Some(other) = other.as_ref().filter(|other| !is_same_source(other)) {
        let text = format!(
            "{} is kept by the mirror of {} from peer {}; give this one another module or path, or remove that \
             mirror on the receiver",
            replica.path.display(),
            other.source,
            Fingerprint::from_bytes(other.peer),
        );
        return Err((CloseCode::Busy, text));
    }
    if carried.owner {
        let map = owners::map_of(owners).map_err(|text| (CloseCode::Unable, text))?;
        let catalog = replica.catalog.clone();
        let changed = catalog.update(true, |t| replica.set_owners(t, map));
        changed.map_err(|error| unable(&error))?;
    }
    replica.set_carried(carried).map_err(|error| unable(&error))?;
    replica.protects = false;
    replica.drop_stale_kept(binding.is_none());
    if other.is_some() {
        // The same sender with the same source, that lost its state or calls this target by another name: a first
        // contact. Its numbers begin anew, so the ones that are known here mean nothing any more.
        tracing::info!(%peer, "a mirror of the same source takes over from the one before");
        replica.disown().map_err(|error| unable(&error))?;
    }
    replica.former.leave();
    // What an earlier connection displaced is compared anew: as if it were not there, or under a name that is seen.
    let catalog = replica.catalog.clone();
    let parked = catalog.update(false, |tables| Ok(replica.remove_parked(tables)));
    parked
        .map_err(|error| unable(&error))?
        .map_err(|error| unable(&error.text))?;
    replica.protects = open.protects || !may_delete;
    replica.sparing = open.sparing;
    replica.whole_files = open.whole_files;
    if module.previous.is_none() && open.path.is_root() {
        previous::conclude_in(&replica.root).map_err(|error| unable(&error))?;
    }
    if open.recheck == Recheck::Contents {
        replica.doubt_contents().map_err(|error| unable(&error))?;
    }
    let is_empty = replica
        .catalog
        .read(|view| crate::store::CatalogRead::has_children(view, ObjectId::ROOT))
        .map_err(|error| unable(&error))
        .map(|has| !has)?;
    if binding.is_none() {
        let source = open.source.to_string();
        let generation = replica.state.generation().map_err(|error| unable(&error))?;
        let binding = Binding {
            mirror: open.mirror,
            peer: *peer.as_bytes(),
            source,
            carried,
            generation,
        };
        // Durable before the first entry is written.
        replica.note_unmet().map_err(|error| unable(&error))?;
        replica.state.bind(&binding).map_err(|error| unable(&error))?;
        replica.write_generation().map_err(|error| unable(&error))?;
    }
    replica.is_unmet = replica.has_not_met().map_err(|error| unable(&error))?;
    let mut sum = replica.ledger.fold();
    let mut cursor = replica.cursor().map_err(|error| unable(&error))?;
    // Without one a mark follows, also if the sums are equal: what is not published waits for it.
    if replica.wants_comparison || replica.publishing.is_awaited() {
        cursor = None;
    }
    if replica.wants_comparison || replica.has_strangers().map_err(|error| unable(&error))? {
        // What only this side has counts in no sum; so the sender is given one that no tree has, and compares everything.
        sum = TreeSum(sum.0.map(|byte| !byte));
    }
    Ok(Opened {
        carried,
        bound: !replica.is_unmet,
        is_empty,
        cursor,
        sum,
        root: ObjectId::ROOT,
        root_path: replica.path.display().to_string().as_str().into(),
        may_delete,
        demoted: false,
    })
}
