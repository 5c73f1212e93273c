//! What a live scenario measures beside wall time and bytes, and how percentiles are computed.

use super::super::report::Spread;
use super::super::table::bytes;
use super::super::tool::Run;
use serde::Serialize;

/// What is compared between tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// The run's wall time.
    #[default]
    Time,
    /// The sending side's processor time in a window of fixed length.
    Cpu,
}

/// Processor times below this are equal to it when they are compared: one millisecond in a window.
const CPU_FLOOR_S: f64 = 1e-3;

/// How long changes took, each from before it was made to when it was visible, complete, on the target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub samples: usize,
    /// How late the observer may have noticed one, in milliseconds, as long as a processor was free for it.
    pub resolution_ms: f64,
    /// The shortest, in milliseconds, as all of these.
    pub min_ms: f64,
    /// Half of them took at most that long.
    pub p50_ms: f64,
    /// 99 of 100 took at most that long; the longest, if there are fewer than 100.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// All, in the order in which they were measured.
    pub all_ms: Vec<f64>,
}

impl Latency {
    /// Of some times in milliseconds; `None` if there are none.
    #[must_use]
    pub fn of(all_ms: Vec<f64>, resolution_ms: f64) -> Option<Latency> {
        let mut sorted = all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        Some(Latency {
            samples: sorted.len(),
            resolution_ms,
            min_ms: *sorted.first()?,
            p50_ms: percentile(&sorted, 50)?,
            p99_ms: percentile(&sorted, 99)?,
            max_ms: *sorted.last()?,
            all_ms,
        })
    }
}

/// The smallest of some ascending numbers that at least `percent` of 100 of them do not exceed (the nearest rank); `None`
/// if there are none. Always one of the numbers, never something between two.
#[must_use]
pub fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The figures of one run of a live scenario. What a scenario does not measure is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// What is compared.
    pub measure: Measure,
    /// Times of single changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Seconds until everything was on stable storage, if the tool tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable_s: Option<f64>,
    /// Seconds that the transfer took beside which something else was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer_s: Option<f64>,
    /// How often events were lost and the whole tree was looked at again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescans: Option<u64>,
    /// How many targets there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<usize>,
    /// Seconds over which processor time was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_s: Option<f64>,
    /// Memory that the sending side's daemons had resident in the end, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_sender: Option<u64>,
    /// The same of the receiving side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_receiver: Option<u64>,
    /// Watches that the sender holds in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watches: Option<u64>,
    /// Operations a second in a directory that is no part of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_per_s: Option<f64>,
    /// Operations a second in the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_per_s: Option<f64>,
    /// Seconds from the return of a target that was away to when everything was visible there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caught_up_s: Option<f64>,
    /// Entries of the source, where memory is to be compared with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// The part of the content that had arrived when the connection was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_at: Option<f64>,
}

impl Run {
    /// The number by which tools are compared, and whether it is processor time.
    pub(in crate::bench) fn compared(&self) -> (f64, Measure) {
        let measure = self
            .live
            .as_ref()
            .map_or(Measure::Time, |figures| figures.measure);
        match measure {
            Measure::Time => (self.wall_s, measure),
            Measure::Cpu => (self.cpu_sender_s.unwrap_or_default().max(CPU_FLOOR_S), measure),
        }
    }
}

/// What the runs of a row came to, in words: latencies of all runs together, of everything else the middle run. `None` if
/// these are no live runs.
#[must_use]
pub fn summary(runs: &[Run]) -> Option<String> {
    let all: Vec<&Figures> = runs.iter().filter_map(|run| run.live.as_ref()).collect();
    let middle = |value: &dyn Fn(&Figures) -> Option<f64>| {
        Spread::of(all.iter().filter_map(|figures| value(figures))).map(|spread| spread.median)
    };
    let number =
        |value: &dyn Fn(&Figures) -> Option<u64>| middle(&|figures| value(figures).map(|n| n as f64));
    let mut parts = Vec::new();
    let latencies: Vec<&Latency> = all
        .iter()
        .filter_map(|figures| figures.latency.as_ref())
        .collect();
    let resolution = latencies.first().map_or(0.0, |latency| latency.resolution_ms);
    let pooled = latencies
        .iter()
        .flat_map(|latency| latency.all_ms.iter().copied())
        .collect();
    if let Some(all) = Latency::of(pooled, resolution) {
        let Latency {
            min_ms,
            p50_ms,
            p99_ms,
            max_ms,
            samples,
            ..
        } = all;
        parts.push(format!(
            "p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, {min_ms:.1} to {max_ms:.1} ms, {samples} samples"
        ));
    }
    let mut tell = |value: Option<f64>, text: &dyn Fn(f64) -> String| parts.extend(value.map(text));
    tell(middle(&|f| f.durable_s), &|s| format!("durable {s:.3} s"));
    tell(middle(&|f| f.transfer_s), &|s| format!("large file {s:.2} s"));
    tell(number(&|f| f.rescans), &|n| format!("{n:.0} rescans"));
    tell(number(&|f| f.targets.map(|n| n as u64)), &|n| {
        format!("{n:.0} targets")
    });
    tell(middle(&|f| f.window_s), &|s| format!("window {s:.1} s"));
    if all.iter().any(|figures| figures.measure == Measure::Cpu) {
        // Too small for the columns of the table.
        for (side, cpu) in [("sender", 0), ("receiver", 1)] {
            let mut found: Vec<f64> = runs
                .iter()
                .filter_map(|run| [run.cpu_sender_s, run.cpu_receiver_s][cpu])
                .collect();
            found.sort_by(f64::total_cmp);
            tell(percentile(&found, 50), &|s| {
                format!("CPU {:.1} ms {side}", s * 1e3)
            });
        }
    }
    let entries = number(&|f| f.entries);
    let each = |n: f64| entries.map_or(String::new(), |all| format!(" ({:.0} B an entry)", n / all));
    tell(number(&|f| f.resident_sender), &|n| {
        format!("resident {} sender{}", bytes(Some(n)), each(n))
    });
    tell(number(&|f| f.resident_receiver), &|n| {
        format!("{} receiver{}", bytes(Some(n)), each(n))
    });
    tell(number(&|f| f.watches), &|n| format!("{n:.0} kernel watches"));
    tell(middle(&|f| f.foreign_per_s), &|n| {
        format!("{n:.0} foreign operations a second")
    });
    tell(middle(&|f| f.source_per_s), &|n| {
        format!("{n:.0} operations a second in the source")
    });
    tell(middle(&|f| f.caught_up_s), &|s| format!("caught up in {s:.2} s"));
    tell(middle(&|f| f.cut_at), &|part| {
        format!("cut at {:.0} %", part * 100.0)
    });
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7.0], 1), Some(7.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[1.0, 2.0], 50), Some(1.0));
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 50), Some(2.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            [0, 1, 50, 99, 100].map(|percent| percentile(&hundred, percent)),
            [1.0, 1.0, 50.0, 99.0, 100.0].map(Some)
        );
        let many: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(
            percentile(&many, 99),
            Some(100.0),
            "99 % of 101 are more than 99 of them"
        );
    }

    #[test]
    fn latencies_need_not_be_sorted() {
        let latency = Latency::of(vec![3.0, 1.0, 2.0, 10.0], 0.1).unwrap();
        assert_eq!(
            (latency.min_ms, latency.p50_ms, latency.p99_ms, latency.max_ms),
            (1.0, 2.0, 10.0, 10.0)
        );
        assert_eq!(latency.all_ms, [3.0, 1.0, 2.0, 10.0]);
        assert_eq!(Latency::of(Vec::new(), 0.1), None);
    }

    #[test]
    fn latencies_of_all_runs_are_taken_together() {
        let run = |all: &[f64]| Run {
            live: Some(Figures {
                latency: Latency::of(all.to_vec(), 0.1),
                rescans: Some(0),
                ..Figures::default()
            }),
            ..Run::default()
        };
        let text = summary(&[run(&[1.0, 2.0]), run(&[9.0])]).unwrap();
        assert_eq!(
            text,
            "p50 2.0 ms, p99 9.0 ms, 1.0 to 9.0 ms, 3 samples, 0 rescans"
        );
        assert_eq!(summary(&[Run::default()]), None);
    }

    #[test]
    fn memory_is_told_by_entry_where_entries_are_known() {
        let run = |entries| Run {
            live: Some(Figures {
                resident_sender: Some(100_000_000),
                resident_receiver: Some(50_000_000),
                entries,
                ..Figures::default()
            }),
            ..Run::default()
        };
        assert_eq!(
            summary(&[run(Some(1_000_000))]).unwrap(),
            "resident 100MB sender (100 B an entry), 50.0MB receiver (50 B an entry)"
        );
        assert_eq!(
            summary(&[run(None)]).unwrap(),
            "resident 100MB sender, 50.0MB receiver"
        );
    }

    #[test]
    fn no_processor_time_at_all_can_be_compared() {
        let run = |cpu, measure| Run {
            wall_s: 10.0,
            cpu_sender_s: cpu,
            live: Some(Figures {
                measure,
                ..Figures::default()
            }),
            ..Run::default()
        };
        assert_eq!(run(Some(0.0), Measure::Cpu).compared().0, CPU_FLOOR_S);
        assert_eq!(run(Some(0.5), Measure::Cpu).compared().0, 0.5);
        assert_eq!(run(Some(0.5), Measure::Time).compared().0, 10.0);
        assert_eq!(Run::default().compared(), (0.0, Measure::Time));
    }
}
