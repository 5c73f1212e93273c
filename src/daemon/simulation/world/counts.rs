//! What schedules tried, so that one can tell what was not.

/// What was tried.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    pub schedules: u64,
    pub edits: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub names_lost: u64,
    pub contents_lost: u64,
    pub connections: u64,
    pub cuts: u64,
    pub partitions: u64,
    pub overflows: u64,
    pub deliveries: u64,
    pub rests: u64,
}

impl Counts {
    pub(super) fn each(&self) -> [u64; 12] {
        let Counts {
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
        } = self.clone();
        [
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
        ]
    }

    /// Counts what another schedule tried.
    pub fn add(&mut self, other: &Counts) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = other.each();
        self.schedules += a;
        self.edits += b;
        self.crashes += c;
        self.power_cuts += d;
        self.names_lost += e;
        self.contents_lost += f;
        self.connections += g;
        self.cuts += h;
        self.partitions += i;
        self.overflows += j;
        self.deliveries += k;
        self.rests += l;
    }

    /// Fails if a kind of fault was never tried. No content is ever lost that has a name: it is flushed before.
    pub fn check(&self) {
        let tried = Counts {
            contents_lost: 1,
            ..self.clone()
        };
        assert!(
            tried.each().iter().all(|&count| count > 0),
            "nothing was tried of something: {self:?}"
        );
    }
}
