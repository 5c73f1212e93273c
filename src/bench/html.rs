//! The result as one HTML page without anything outside it: charts are inline SVG.

use super::report::{Report, Row, Verdict, bytes};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h2{margin:2rem 0 .2rem;font-size:1.1rem}svg{width:100%;height:auto}.void{color:#a00}p{margin:.3rem 0}\
    svg text{font:13px system-ui,sans-serif}";
const BAR: u32 = 26;

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(report, &mut out);
    out
}

fn write_page(report: &Report, out: &mut String) -> std::fmt::Result {
    let machine = &report.machine;
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>driftless bench</title><style>{STYLE}</style><h1>driftless bench</h1><p>Link {}, {} runs, {}, kernel {}, {}, \
         TCP {}; driftless {}; {}; {}</p><p>Wall time; the thin line reaches from the fastest to the slowest run.</p>",
        escape(&report.link),
        report.runs,
        escape(&machine.processor),
        escape(&machine.kernel),
        escape(&machine.file_system),
        escape(&machine.tcp),
        escape(&machine.driftless),
        escape(machine.rsync.as_deref().unwrap_or("no rsync")),
        escape(machine.ssh.as_deref().unwrap_or("no ssh")),
    )?;
    for rows in report.rows.chunk_by(|a, b| a.scenario == b.scenario) {
        let Some(first) = rows.first() else { continue };
        let content = bytes(Some(first.content_bytes as f64));
        let (name, what) = (escape(first.scenario), escape(first.what));
        write!(
            out,
            "<h2>{name}</h2><p>{what} ({} entries, {content})</p>",
            first.entries
        )?;
        chart(rows, out)?;
        for row in rows {
            if let Some(why) = &row.void {
                write!(
                    out,
                    "<p class=void>{}: void: {}</p>",
                    escape(&row.tool),
                    escape(why)
                )?;
            }
        }
    }
    out.push_str("<h2>How it was measured</h2><ul>");
    for line in report
        .method
        .iter()
        .copied()
        .chain(report.notes.iter().map(String::as_str))
    {
        write!(out, "<li>{}</li>", escape(line))?;
    }
    out.push_str("</ul></html>\n");
    Ok(())
}

fn chart(rows: &[Row], out: &mut String) -> std::fmt::Result {
    let spreads: Vec<_> = rows.iter().filter_map(|row| Some((row, row.wall_s?))).collect();
    let longest = spreads
        .iter()
        .map(|(_, wall)| wall.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = spreads.len() as u32 * BAR + 4;
    write!(out, "<svg viewBox=\"0 0 960 {height}\" role=img>")?;
    for (at, (row, wall)) in spreads.into_iter().enumerate() {
        let y = at as u32 * BAR + 3;
        let x = |seconds: f64| 170.0 + seconds / longest * 480.0;
        let color = if row.ours { "#1b6ca8" } else { "#9aa5b1" };
        let verdict = match (row.verdict, row.ratio) {
            (Some(Verdict::Win), Some(ratio)) => format!(", driftless {:.2}x faster", ratio.median),
            (Some(Verdict::Loss), Some(ratio)) => format!(", driftless LOSES: {:.2}x", ratio.median),
            (Some(Verdict::Even), _) => ", even".to_owned(),
            _ => String::new(),
        };
        write!(
            out,
            "<text x=0 y={ty}>{}</text><rect x=170 y={y} width={:.1} height=18 fill=\"{color}\"/><path d=\"M{:.1} {my}H{:.1}\" \
             stroke=\"#222\"/><text x={:.1} y={ty}>{:.3} s{verdict}</text>",
            escape(&row.tool),
            x(wall.median) - 170.0,
            x(wall.min),
            x(wall.max),
            x(wall.max) + 8.0,
            wall.median,
            ty = y + 14,
            my = y + 9,
        )?;
    }
    out.push_str("</svg>");
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
