//! Charts of the results, as SVG and as PNG.
//!
//! The font is built in, since servers have none. SVG names only its kind and leaves the choice to the viewer.

use super::BenchError;
use super::live::Measure;
use super::report::{Report, Row, Verdict};
use super::table::bytes;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::sync::Once;

/// Width of a chart in pixels.
const WIDTH: u32 = 1000;
/// Height of one bar with the space around it.
const BAR: i32 = 26;
/// Space above the bars of a scenario.
const HEAD: i32 = 46;
/// Where the bars of wall time begin, and how long the longest is.
const WALL: (i32, i32) = (190, 330);
/// Where the bars of bytes begin, and how long the longest is.
const BYTES: (i32, i32) = (760, 150);

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const THEIRS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const LOST: RGBColor = RGBColor(0xa0, 0x10, 0x10);

/// The name under which the font is registered.
const FONT: &str = "sans-serif";
static FONT_FILE: &[u8] = include_bytes!("font/bench-sans.ttf");

type Area<'a, B> = DrawingArea<B, plotters::coord::Shift>;

/// One SVG for each scenario, in the order of the report.
///
/// # Errors
/// When drawing fails.
pub fn panels(report: &Report) -> Result<Vec<String>, BenchError> {
    scenarios(report).map(|rows| svg_of(&[rows])).collect()
}

/// All scenarios as one SVG.
///
/// # Errors
/// When drawing fails.
pub fn svg(report: &Report) -> Result<String, BenchError> {
    svg_of(&scenarios(report).collect::<Vec<_>>())
}

/// All scenarios as one PNG.
///
/// # Errors
/// When drawing or encoding fails.
pub fn png(report: &Report) -> Result<Vec<u8>, BenchError> {
    let all: Vec<&[Row]> = scenarios(report).collect();
    let size = (WIDTH, height(&all));
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    draw(BitMapBackend::with_buffer(&mut pixels, size), &all)?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels))
        .map_err(|error| BenchError::new(format!("cannot encode the chart as PNG: {error}")))?;
    Ok(file)
}

fn scenarios(report: &Report) -> impl Iterator<Item = &[Row]> {
    report.rows.chunk_by(|a, b| a.scenario == b.scenario)
}

fn svg_of(scenarios: &[&[Row]]) -> Result<String, BenchError> {
    let mut text = String::new();
    draw(
        SVGBackend::with_string(&mut text, (WIDTH, height(scenarios))),
        scenarios,
    )?;
    Ok(text)
}

fn height_of(rows: &[Row]) -> i32 {
    HEAD + BAR * rows.len() as i32 + 8
}

fn height(scenarios: &[&[Row]]) -> u32 {
    scenarios.iter().map(|rows| height_of(rows)).sum::<i32>().max(1) as u32
}

fn draw<B: DrawingBackend>(backend: B, scenarios: &[&[Row]]) -> Result<(), BenchError> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // A font that is refused shows as an error of the first text.
        let _ = register_font(FONT, FontStyle::Normal, FONT_FILE);
    });
    let work = || {
        let root = backend.into_drawing_area();
        root.fill(&WHITE)?;
        let breaks: Vec<i32> = scenarios
            .iter()
            .scan(0, |y, rows| {
                *y += height_of(rows);
                Some(*y)
            })
            .collect();
        let areas = root.split_by_breakpoints(Vec::<i32>::new(), breaks);
        for (area, rows) in areas.iter().zip(scenarios) {
            panel(area, rows)?;
        }
        root.present()
    };
    work().map_err(|error: DrawingAreaErrorKind<B::ErrorType>| {
        BenchError::new(format!("cannot draw the chart: {error}"))
    })
}

/// The bars of one scenario: wall time on the left, bytes on the right.
fn panel<B: DrawingBackend>(
    area: &Area<'_, B>,
    rows: &[Row],
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let Some(first) = rows.first() else {
        return Ok(());
    };
    let title = format!("{}: {}", first.scenario, first.what);
    area.draw(&Text::new(title, (8, 14), text(16, &INK, HPos::Left)))?;
    let heading = |x, what: &'static str| Text::new(what, (x, 34), text(12, &INK, HPos::Left));
    let compared = match first.measure() {
        Measure::Time => "wall time; the line: fastest to slowest run",
        Measure::Cpu => "CPU time of the sending side; the line: least to most",
    };
    area.draw(&heading(WALL.0, compared))?;
    area.draw(&heading(BYTES.0, "bytes both ways"))?;
    let longest = rows.iter().filter_map(|row| Some(row.compared()?.max));
    let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
    let most = rows.iter().filter_map(traffic).fold(f64::MIN_POSITIVE, f64::max);
    for (at, row) in rows.iter().enumerate() {
        let (top, middle) = (HEAD + BAR * at as i32 + 3, HEAD + BAR * at as i32 + BAR / 2);
        let color = if row.ours { OURS } else { THEIRS };
        let bar =
            |x: i32, length: i32| Rectangle::new([(x, top), (x + length, top + BAR - 6)], color.filled());
        area.draw(&Text::new(
            row.tool.as_str(),
            (WALL.0 - 8, middle),
            text(14, &INK, HPos::Right),
        ))?;
        let Some(wall) = row.compared() else {
            let what = if row.void.is_some() { "void" } else { "no runs" };
            area.draw(&Text::new(what, (WALL.0, middle), text(14, &LOST, HPos::Left)))?;
            continue;
        };
        let length = |seconds: f64| (seconds / longest * f64::from(WALL.1)) as i32;
        area.draw(&bar(WALL.0, length(wall.median).max(1)))?;
        let ends = [wall.min, wall.max].map(|seconds| (WALL.0 + length(seconds), middle));
        area.draw(&PathElement::new(ends, INK))?;
        let (label, ink) = label(row, wall.median);
        area.draw(&Text::new(
            label,
            (ends[1].0 + 8, middle),
            text(14, &ink, HPos::Left),
        ))?;
        if let Some(bytes_moved) = traffic(row) {
            let length = (bytes_moved / most * f64::from(BYTES.1)) as i32;
            area.draw(&bar(BYTES.0, length.max(1)))?;
            let place = (BYTES.0 + length + 8, middle);
            area.draw(&Text::new(
                bytes(Some(bytes_moved)),
                place,
                text(14, &INK, HPos::Left),
            ))?;
        }
    }
    Ok(())
}

/// Bytes both ways.
fn traffic(row: &Row) -> Option<f64> {
    row.wall_s?;
    row.median(|run| Some((run.bytes_up? + run.bytes_down?) as f64))
}

fn label(row: &Row, median: f64) -> (String, RGBColor) {
    let time = time(median);
    let better = match row.measure() {
        Measure::Time => "faster",
        Measure::Cpu => "less CPU",
    };
    match (row.verdict, row.ratio) {
        (Some(Verdict::Win), Some(ratio)) => {
            (format!("{time}, driftless {:.2}x {better}", ratio.median), INK)
        }
        (Some(Verdict::Loss), Some(ratio)) => {
            (format!("{time}, driftless LOSES: {:.2}x", ratio.median), LOST)
        }
        (Some(Verdict::Even), _) => (format!("{time}, even"), INK),
        _ => (time, INK),
    }
}

/// A time with three digits or so.
fn time(seconds: f64) -> String {
    if seconds < 0.1 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.3} s")
    }
}

fn text(size: i32, color: &RGBColor, horizontal: HPos) -> TextStyle<'static> {
    (FONT, size)
        .into_font()
        .color(color)
        .pos(Pos::new(horizontal, VPos::Center))
}
