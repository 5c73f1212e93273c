//! The report as a table for people.

use super::live::{self, Measure};
use super::report::{Loss, Report, Row, Verdict};
use std::fmt::Write;

impl Report {
    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing into a string cannot fail.
        let _ = self.write_table(&mut out);
        out
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let machine = &self.machine;
        writeln!(
            out,
            "link {}, {} runs each, {} cache, {}, {}, kernel {}; source on {}, copies on {} ({}); TCP {}",
            self.link,
            self.runs,
            self.cache,
            machine.processor,
            bytes(Some(machine.memory as f64)),
            machine.kernel,
            machine.file_system,
            machine.target_file_system,
            self.target_fs,
            machine.tcp
        )?;
        let versions = [&machine.rsync, &machine.ssh, &machine.lsyncd].map(Option::as_deref);
        let versions: Vec<&str> = versions.into_iter().flatten().collect();
        writeln!(out, "driftless {}; {}", machine.driftless, versions.join("; "))?;
        let width = self
            .rows
            .iter()
            .map(|row| row.tool.len())
            .max()
            .unwrap_or_default();
        let mut scenario = "";
        for row in &self.rows {
            if row.scenario != scenario {
                scenario = row.scenario;
                let (entries, bytes) = (row.entries, bytes(Some(row.content_bytes as f64)));
                writeln!(out, "\n{scenario}: {} ({entries} entries, {bytes})", row.what)?;
                writeln!(
                    out,
                    "  {:<width$} {:>7} {:>7} {:>7} {:>9} {:>9} {:>11} {:>15} {:>7}  driftless is",
                    "", "min s", "median", "max", "up", "down", "CPU s", "memory", "durable"
                )?;
            }
            row.write(out, width)?;
        }
        self.write_losses(out)?;
        writeln!(out)?;
        for line in self
            .method
            .iter()
            .copied()
            .chain(self.notes.iter().map(String::as_str))
        {
            writeln!(out, "- {line}")?;
        }
        Ok(())
    }

    /// One line for each scenario and tool.
    fn write_losses(&self, out: &mut String) -> std::fmt::Result {
        if self.losses.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nWhere driftless loses:")?;
        let same = |a: &Loss, b: &Loss| a.scenario == b.scenario && a.tool == b.tool;
        for losses in self.losses.chunk_by(same) {
            let all: Vec<String> = losses
                .iter()
                .map(|loss| format!("{:.2}x the {}", loss.ratio, loss.measure))
                .collect();
            let Loss { scenario, tool, .. } = &losses[0];
            writeln!(out, "  {scenario}: {} of {tool}", all.join(", "))?;
        }
        Ok(())
    }
}

impl Row {
    fn write(&self, out: &mut String, width: usize) -> std::fmt::Result {
        if let Some(why) = &self.void {
            return writeln!(out, "  {:<width$} VOID: {why}", self.tool);
        }
        let Some(wall) = self.wall_s else {
            return writeln!(out, "  {:<width$} no runs", self.tool);
        };
        let pair = |a: String, b: String| format!("{a}+{b}");
        let seconds =
            |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| format!("{value:.2}"));
        let count = |value: Option<u64>| value.map(|value| value as f64);
        let up = bytes(self.median(|run| count(run.bytes_up)));
        let down = bytes(self.median(|run| count(run.bytes_down)));
        let cpu = pair(
            seconds(self.median(|run| run.cpu_sender_s)),
            seconds(self.median(|run| run.cpu_receiver_s)),
        );
        let memory = pair(
            bytes(self.median(|run| count(run.peak_sender))),
            bytes(self.median(|run| count(run.peak_receiver))),
        );
        let durable = if self.durable { "yes" } else { "no" }.to_owned();
        let mut costs = [up, down, cpu, memory, durable];
        if self.tool == live::NOBODY {
            // There is nothing that could be known.
            costs.fill("-".to_owned());
        }
        let [up, down, cpu, memory, durable] = costs;
        let verdict = match (self.ratio, self.verdict) {
            (Some(ratio), Some(verdict)) => {
                let spread = format!("({:.2} to {:.2})", ratio.min, ratio.max);
                let (better, worse) = match self.measure() {
                    Measure::Time => ("faster", "SLOWER"),
                    Measure::Cpu => ("less CPU", "MORE CPU"),
                };
                match verdict {
                    Verdict::Win => format!("{:.2}x {better} {spread}", ratio.median),
                    Verdict::Even => format!("even, {:.2}x {spread}", ratio.median),
                    Verdict::Loss => format!("{worse}, LOSES: {:.2}x {spread}", ratio.median),
                }
            }
            _ => String::new(),
        };
        writeln!(
            out,
            "  {:<width$} {:>7.3} {:>7.3} {:>7.3} {up:>9} {down:>9} {cpu:>11} {memory:>15} {durable:>7}  {verdict}",
            self.tool, wall.min, wall.median, wall.max
        )?;
        match live::summary(&self.runs) {
            Some(text) => writeln!(out, "  {:<width$}   {text}", ""),
            None => Ok(()),
        }
    }
}

/// Bytes in decimal units, short.
pub(super) fn bytes(number: Option<f64>) -> String {
    let Some(mut value) = number else {
        return "?".to_owned();
    };
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" || value >= 99.5 {
                format!("{value:.0}{unit}")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1}TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        let text = |number: f64| bytes(Some(number));
        assert_eq!(
            [0.0, 999.0, 1000.0, 123_456.0, 1.5e9].map(text),
            ["0B", "999B", "1.0kB", "123kB", "1.5GB"]
        );
    }
}
