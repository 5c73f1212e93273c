//! Congestion control: which controller a connection has.
//!
//! `bdp` is ours; the others are quinn's.

mod bdp;
mod delivery;
mod memory;
mod probing;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use memory::PathMemory;
pub use probing::Permit;

use bdp::{Bdp, BdpConfig};
use probing::ProbingConfig;
use quinn::congestion::{BbrConfig, Controller, ControllerFactory, CubicConfig, NewRenoConfig};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes that may be in flight before anything is acknowledged. They are paced over a round trip.
const INITIAL_WINDOW: u64 = 64 << 10;

/// Congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Congestion {
    /// What measurement speaks for: [`Congestion::Bdp`].
    #[default]
    Auto,
    /// Ours: about one bandwidth-delay product in flight, whatever is lost at random.
    Bdp,
    /// quinn's BBR, which keeps its rate under random loss and floods queues.
    Bbr,
    /// The internet's standard (RFC 9438); collapses under random loss.
    Cubic,
    /// RFC 9002's; the most modest.
    NewReno,
}

impl Congestion {
    /// All, by the names they have on the command line.
    pub const ALL: [(&'static str, Congestion); 5] = [
        ("auto", Congestion::Auto),
        ("bdp", Congestion::Bdp),
        ("bbr", Congestion::Bbr),
        ("cubic", Congestion::Cubic),
        ("newreno", Congestion::NewReno),
    ];

    /// Makes the controllers of a connection. Only ours makes use of what is `remembered` of the path.
    pub(super) fn factory(
        self,
        remembered: Option<PathMemory>,
        permit: Arc<Permit>,
    ) -> Arc<dyn ControllerFactory + Send + Sync> {
        let inner = self.plain_factory(remembered);
        Arc::new(ProbingConfig { inner, permit })
    }

    fn plain_factory(self, remembered: Option<PathMemory>) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Congestion::Auto | Congestion::Bdp => Arc::new(BdpConfig { remembered }),
            Congestion::Bbr => {
                let mut bbr = BbrConfig::default();
                bbr.initial_window(INITIAL_WINDOW);
                Arc::new(bbr)
            }
            Congestion::Cubic => {
                let mut cubic = CubicConfig::default();
                cubic.initial_window(INITIAL_WINDOW);
                Arc::new(cubic)
            }
            Congestion::NewReno => {
                let mut reno = NewRenoConfig::default();
                reno.initial_window(INITIAL_WINDOW);
                Arc::new(reno)
            }
        }
    }
}

/// What a controller can tell the next connection: nothing, unless it is ours and was busy.
pub(super) fn memory_of(controller: Box<dyn Controller>) -> Option<PathMemory> {
    controller.into_any().downcast::<Bdp>().ok()?.memory()
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, congestion)| congestion == self);
        f.write_str(name.map_or("auto", |(name, _)| name))
    }
}

impl FromStr for Congestion {
    type Err = String;

    fn from_str(text: &str) -> Result<Congestion, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|&(_, congestion)| congestion).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!(
                "{text:?} is no congestion control; there are {}",
                names.join(", ")
            )
        })
    }
}
