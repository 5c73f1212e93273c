//! What goes wrong: processes and machines that end, and connections that break.

use super::*;

impl World {
    /// One end of a broken connection finds out.
    pub(super) fn break_one_end(&mut self) {
        let Some(connection) = self
            .connections
            .iter_mut()
            .find(|connection| connection.is_broken)
        else {
            return;
        };
        let is_near = connection.far.is_none() || (connection.near.is_some() && self.random.below(2) == 0);
        let text = "the connection was lost";
        if is_near {
            if let Some(side) = connection.near.take() {
                side.end(CloseCode::Done, text);
            }
            self.baton.wake(Role::Sender);
        } else {
            if let Some(side) = connection.far.take() {
                side.end(CloseCode::Done, text);
            }
            self.baton.wake(Role::Receiver);
        }
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        let is_open = self.services.exchange().is_open;
        match self.random.below(10) {
            choice @ 0..=5 => {
                let role = if choice % 2 == 0 {
                    Role::Receiver
                } else {
                    Role::Sender
                };
                let is_power = choice >= 2 && self.random.below(2) == 0;
                let place = &mut self.places[role as usize];
                if self.baton.part(role).is_there && place.doom.is_none() {
                    place.doom = Some(is_power);
                    if self.random.below(4) == 0 {
                        place.life.end();
                    } else {
                        place.life.end_after(self.random.below(25) as u64);
                    }
                    let told = format!("{role:?} will end, with its machine: {is_power}");
                    self.say(|| told);
                    if self.places[role as usize].life.has_ended() {
                        self.after_turn(role)?;
                    }
                }
            }
            6 | 7 => {
                self.counts.cuts += 1;
                self.say(|| "the connection breaks".to_owned());
                for connection in &mut self.connections {
                    connection.is_broken = true;
                }
            }
            8 if is_open => {
                self.counts.partitions += 1;
                self.say(|| "nothing passes".to_owned());
                self.services.exchange().is_open = false;
            }
            _ => {
                self.counts.overflows += 1;
                self.editor.lose_track();
                self.editor.untold.push_back(WatchEvent::Overflow);
            }
        }
        Ok(())
    }

    /// Buries a process that has ended, whoever ended it.
    pub(super) fn after_turn(&mut self, role: Role) -> Result<(), String> {
        let has_ended = self.places[role as usize].life.has_ended();
        if has_ended {
            self.baton.kill(role, self.now);
        }
        let part = self.baton.part(role);
        if part.is_there {
            return Ok(());
        }
        if let Some(thread) = self.places[role as usize].thread.take() {
            let _ = thread.join();
        }
        if let Some(outcome) = part.outcome.filter(|_| !has_ended) {
            if outcome.starts_with("panicked") {
                return Err(self.failure(&format!("the {role:?} {outcome}")));
            }
            let is_refused = self.keeping.note_end(&outcome);
            self.errors += u32::from(!is_refused);
            self.say(|| format!("{role:?} ended: {outcome}"));
            self.last_error = outcome;
        }
        if role == Role::Sender {
            let mut saying = self.told.lock();
            saying.is_in_sync = false;
            saying.held = None;
        }
        for connection in &mut self.connections {
            connection.is_broken = true;
            match role {
                Role::Sender => connection.near = None,
                Role::Receiver => connection.far = None,
            }
        }
        match role {
            Role::Sender => {
                self.services.watched.end();
                self.editor.lose_track();
            }
            Role::Receiver => {
                let mut exchange = self.services.exchange();
                exchange.is_open = false;
                exchange.accepted.clear();
            }
        }
        if has_ended {
            self.say(|| format!("{role:?} is gone"));
            self.counts.crashes += 1;
            if self.places[role as usize].doom == Some(true) {
                self.lose_power(role).map_err(|error| error.to_string())?;
            }
        }
        self.places[role as usize].doom = None;
        Ok(())
    }

    fn lose_power(&mut self, role: Role) -> io::Result<()> {
        self.counts.power_cuts += 1;
        let random = &mut self.random;
        self.places[role as usize]
            .databases
            .lose(|| random.below(2) == 0)?;
        let mut lost = (0, 0);
        if role == Role::Receiver {
            lost = self.disk.lose(&mut |bound| random.below(bound))?;
        }
        self.counts.names_lost += lost.0 as u64;
        self.counts.contents_lost += lost.1 as u64;
        self.say(|| {
            format!(
                "{role:?}: the power goes; lost {} changes of names, {} contents",
                lost.0, lost.1
            )
        });
        Ok(())
    }
}
