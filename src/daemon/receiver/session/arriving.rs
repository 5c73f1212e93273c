//! What comes over the connection: ops, and messages beside them.

use super::*;

impl<'a> Session<'a> {
    pub(super) fn take_frame(&mut self, frame: OpFrame) -> Result<(), SessionError> {
        for message in frame.0 {
            match message {
                OpMessage::Op(op) => {
                    self.replica.note_met()?;
                    self.hold(&op)?;
                    self.count_owners(&op.body)?;
                    self.confirms.note_op(&op);
                    self.order
                        .handle_op(op)
                        .map_err(|fault| SessionError::Violation(fault.to_string()))?;
                }
                OpMessage::Seal(seal) => match rights::check_attributes(&seal.attributes, self.rights) {
                    Ok(()) => self.staging.handle_seal(seal),
                    Err(refusal) => self.refuse_seal(seal.number, refusal)?,
                },
                OpMessage::Withdraw { number } => {
                    // Only an offer can be withdrawn: an inline file's thread reports whatever happens.
                    if self
                        .pending
                        .get(&number)
                        .is_some_and(|pending| pending.offer.is_some())
                    {
                        self.pending.remove(&number);
                        self.asked.remove(&number);
                        self.staging.wanted.withdraw(number);
                        self.offers.retain(|&offer| offer != number);
                        self.confirms.note_complete(number);
                        self.order.handle_ended(number);
                    }
                }
            }
        }
        Ok(())
    }

    /// An offered file that turned out to be something that this peer may not make.
    fn refuse_seal(&mut self, number: u64, refusal: ApplyError) -> Result<(), SessionError> {
        if self
            .pending
            .get(&number)
            .is_none_or(|pending| pending.offer.is_none())
        {
            return Ok(());
        }
        self.asked.remove(&number);
        self.staging.wanted.withdraw(number);
        self.offers.retain(|&offer| offer != number);
        self.end_failed(number, Err(refusal))
    }

    /// A sender has so many users and groups at most.
    fn count_owners(&mut self, body: &OpBody) -> Result<(), SessionError> {
        if let OpBody::Owners(rows) = body {
            self.owners += rows.0.len();
        }
        match self.owners > OWNERS_TOTAL_MAX {
            true => Err(SessionError::Limit(format!(
                "more than {OWNERS_TOTAL_MAX} users and groups were named"
            ))),
            false => Ok(()),
        }
    }

    /// Counts content that sits in memory. A sender knows the limit, too.
    fn hold(&mut self, op: &Op) -> Result<(), SessionError> {
        let bytes = op.held_bytes();
        if bytes == 0 {
            return Ok(());
        }
        self.inline_bytes += bytes;
        self.inline.insert(op.number, bytes);
        if self.inline_bytes > INLINE_IN_FLIGHT_BYTES_MAX {
            let text =
                format!("more than {INLINE_IN_FLIGHT_BYTES_MAX} bytes of content are in flight inside ops");
            return Err(SessionError::Limit(text));
        }
        Ok(())
    }

    pub(super) fn release(&mut self, number: u64) {
        self.inline_bytes -= self.inline.remove(&number).unwrap_or(0);
    }

    pub(super) fn handle_control(&mut self, message: ToReceiver) -> Result<(), SessionError> {
        match message {
            ToReceiver::Open(_) => Err(SessionError::Violation("the session was opened twice".to_owned())),
            ToReceiver::List(directories) => {
                if directories.0.contains(&ObjectId::ROOT) {
                    self.replica.wants_comparison = false;
                }
                self.settle_displaced()?;
                // Sums differ: what is only believed is no proof of it.
                let catalog = self.replica.catalog.clone();
                self.replica.ledger.count_again(&catalog)?;
                self.listed = Some(self.order.marks_passed());
                listing::send_listings(self.replica, self.link, &directories.0)
            }
            ToReceiver::ListDisk(_)
            | ToReceiver::Survey { .. }
            | ToReceiver::ReadContents { .. }
            | ToReceiver::Doubt(_) => Err(SessionError::Violation(
                "a look at the disk was asked for on a connection that mirrors".to_owned(),
            )),
            ToReceiver::Owners(_) => Err(SessionError::Violation(
                "owners were named outside of an op on a connection that mirrors".to_owned(),
            )),
            ToReceiver::Flush { number } => {
                self.flush_wanted = self.flush_wanted.max(number);
                self.flush_if_wanted()
            }
            ToReceiver::ConfirmReceived { token, through } => match self.confirms.ask(token, through) {
                true => Ok(()),
                false => Err(SessionError::Limit(
                    "too many confirmations are asked for".to_owned(),
                )),
            },
            ToReceiver::ConfirmDurable { token } => {
                // Told first, so that the sender has heard of every op that the flush is about.
                self.tell_progress();
                self.reach_durable()?;
                if !self.awaits_mark() {
                    let _ = self.link.control().send(ToSender::Confirmed { token });
                    return Ok(());
                }
                // Not before all of it is visible, too, which waits for the next mark.
                self.awaiting.push(token);
                match self.awaiting.len() <= CONFIRMS_MAX {
                    true => Ok(()),
                    false => Err(SessionError::Limit(
                        "too many confirmations are asked for".to_owned(),
                    )),
                }
            }
            ToReceiver::InSync { sequence } => {
                // Told for what is durable here only, and once: a sender cannot have hooks run as often as it likes.
                let known = self
                    .cursor
                    .map_or_else(|| self.replica.cursor(), |cursor| Ok(Some(cursor)))?;
                if known.is_some_and(|cursor| cursor.sequence == sequence) {
                    self.status.tell_in_sync(sequence);
                }
                Ok(())
            }
        }
    }

    pub(super) fn confirm_received(&mut self) {
        for token in self.confirms.poll() {
            let _ = self.link.control().send(ToSender::Confirmed { token });
        }
    }

    /// A sender compares when nothing is under way: what is still parked then has lost its own op, and what is still in a directory whose
    /// number went elsewhere has none.
    fn settle_displaced(&mut self) -> Result<(), SessionError> {
        let catalog = self.replica.catalog.clone();
        let outcome = catalog.update(false, |tables| {
            let removed = self.replica.remove_parked(tables);
            Ok(removed.and_then(|()| self.replica.release_stranded(tables)))
        })?;
        outcome.map_err(|error| SessionError::Unable(error.text))
    }

    /// Looks again where somebody found something. Between ops the catalog has everything that was done here, so what differs
    /// was not done by us.
    pub(super) fn take_looks(&mut self) -> Result<(), SessionError> {
        let mut is_told = false;
        while let Ok(look) = self.looks.try_recv() {
            let found = self.replica.look_again(&look.paths, look.how)?;
            if found.must_compare && !std::mem::replace(&mut is_told, true) {
                // Before it is answered: who asked may then rely on it.
                let _ = self.link.control().send(ToSender::Changed);
            }
            let _ = look.answer.send(found);
        }
        Ok(())
    }
}
