//! The result as one HTML page without anything outside it.

use super::BenchError;
use super::chart;
use super::report::Report;
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#222}\
    h2{font-size:1.1rem}svg{width:100%;height:auto}pre{font-size:12px;overflow-x:auto}.void{color:#a00}";

/// The page: charts, and the table as it is printed.
///
/// # Errors
/// When a chart cannot be drawn.
pub fn page(report: &Report) -> Result<String, BenchError> {
    let panels = chart::panels(report)?;
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_page(report, &panels, &mut out);
    Ok(out)
}

fn write_page(report: &Report, panels: &[String], out: &mut String) -> std::fmt::Result {
    write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>driftless bench</title><style>{STYLE}</style><h1>driftless bench, link {}</h1>",
        escape(&report.link)
    )?;
    for row in &report.rows {
        if let Some(why) = &row.void {
            let (scenario, tool, why) = (escape(row.scenario), escape(&row.tool), escape(why));
            write!(out, "<p class=void>{scenario}, {tool}: void: {why}</p>")?;
        }
    }
    for panel in panels {
        out.push_str(&without_namespace(panel));
    }
    writeln!(
        out,
        "<h2>All figures</h2><pre>{}</pre></html>",
        escape(&report.table())
    )
}

/// Inside HTML an SVG needs no namespace, and the page names no address of anything.
fn without_namespace(svg: &str) -> String {
    svg.replacen(" xmlns=\"http://www.w3.org/2000/svg\"", "", 1)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
