//! What schedules tried, so that one can tell what was not.

use super::Deleting;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What was tried.
        #[derive(Debug, Default, Clone, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Counts what another schedule tried.
            pub fn add(&mut self, other: &Counts) {
                $(self.$name += other.$name;)*
            }

            /// The kinds of which nothing was tried.
            pub(super) fn untried(&self) -> Vec<&'static str> {
                [$((stringify!($name), self.$name)),*]
                    .into_iter()
                    .filter_map(|(name, count)| (count == 0).then_some(name))
                    .collect()
            }
        }
    };
}

counts! {
    schedules,
    edits,
    crashes,
    power_cuts,
    names_lost,
    contents_lost,
    connections,
    cuts,
    partitions,
    overflows,
    deliveries,
    rests,
    kept,
    approvals,
}

impl Counts {
    /// Fails if a kind of fault was never tried. No content is ever lost that has a name: it is flushed before.
    pub fn check(&self, deleting: Deleting) {
        let mut untried = self.untried();
        untried.retain(|&name| name != "contents_lost");
        if !matches!(deleting, Deleting::Approved | Deleting::Allowed) {
            untried.retain(|&name| !["kept", "approvals"].contains(&name));
        }
        assert!(untried.is_empty(), "never tried: {untried:?} of {self:?}");
    }
}
