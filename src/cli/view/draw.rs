//! The picture: a pure function from a [`Screen`] to cells.
//!
//! A heading, the table, what there is to say about the selected row, what happened last, and the keys. What does not fit is left
//! out from the end of that list, and columns from the least important one on.

use super::change::Change;
use super::row::{Row, Tone};
use super::screen::Screen;
use crate::cli::text::{count, grouped};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// Below these nothing can be shown.
const WIDTH_MIN: u16 = 20;
const HEIGHT_MIN: u16 = 4;

/// The widest that a mirror's name is shown, as long as there is anything else to show.
const NAME_MAX: usize = 16;

/// What mirror and target need together before less important columns get any room.
const NAMES_MIN: usize = 26;

/// Draws all of it.
pub(super) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        put(buffer, area, 0, "too small", Style::default());
        return;
    }
    let (top, rest) = cut(area, 1);
    let (body, bottom) = cut(rest, rest.height - 1);
    draw_heading(screen, top, buffer);
    draw_keys(screen, bottom, buffer);
    let wanted = u16::try_from(screen.rows.len())
        .unwrap_or(u16::MAX)
        .saturating_add(1);
    // Something of the rest is always to be seen, if there is room at all.
    let table = match body.height {
        0..8 => body.height,
        height => wanted.min(height * 2 / 5).max(3),
    };
    let (table, rest) = cut(body, table);
    if screen.rows.is_empty() {
        draw_nothing(screen, table, buffer);
    } else {
        draw_table(screen, table, buffer);
    }
    let rest = draw_details(screen, rest, buffer);
    draw_changes(screen, rest, buffer);
}

fn draw_heading(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let bold = Style::default().add_modifier(Modifier::BOLD);
    put(buffer, area, 0, "driftless", bold);
    let clock_at = area.width.saturating_sub(screen.clock.len() as u16);
    put(buffer, area, clock_at, &screen.clock, Style::default());
    let (senders, modules): (Vec<_>, Vec<_>) = screen.rows.iter().partition(|row| row.subject.is_some());
    let mut parts = Vec::new();
    if !senders.is_empty() {
        let in_sync = senders.iter().filter(|row| row.tone == Tone::Good).count();
        parts.push(format!(
            "{} of {} in sync",
            in_sync,
            count(senders.len() as u64, "target", "targets")
        ));
    }
    if !modules.is_empty() {
        let connected = modules.iter().filter(|row| row.tone == Tone::Good).count();
        parts.push(count(
            connected as u64,
            "sender connected here",
            "senders connected here",
        ));
    }
    let room = clock_at.saturating_sub(12);
    let summary = fit(&parts.join(", "), room.into());
    put(buffer, area, 11, &summary, Style::default());
}

fn draw_nothing(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let text = match (screen.is_known, screen.problems.is_empty()) {
        (false, _) => "asking ...",
        (true, true) if screen.processes > 0 => {
            "a driftless daemon of this home is running, without any mirror or module"
        }
        (true, true) => "no driftless daemon of this home is running",
        (true, false) => "no driftless daemon of this home answers",
    };
    let area = cut(area, 1).1;
    put(buffer, area, 2, &fit(text, area.width.into()), style(Tone::Quiet));
}

/// A column of the table behind the names.
struct Column {
    title: &'static str,
    width: usize,
    is_number: bool,
    text: fn(&Row) -> String,
    tone: fn(&Row) -> Tone,
}

/// The most important first.
const COLUMNS: [Column; 5] = [
    Column {
        title: "STATE",
        width: 10,
        is_number: false,
        text: |row| row.state.clone(),
        tone: |row| row.tone,
    },
    Column {
        title: "LAG",
        width: 11,
        is_number: true,
        text: |row| row.lag.clone(),
        tone: |row| {
            if row.lag.is_empty() {
                Tone::Plain
            } else {
                Tone::Busy
            }
        },
    },
    Column {
        title: "FAILED",
        width: 6,
        is_number: true,
        text: |row| match row.failed {
            0 => String::new(),
            failed => grouped(failed),
        },
        tone: |_| Tone::Bad,
    },
    Column {
        title: "RATE",
        width: 10,
        is_number: true,
        text: |row| row.rate.clone(),
        tone: |_| Tone::Plain,
    },
    Column {
        title: "TO GO",
        width: 18,
        is_number: true,
        text: |row| row.to_go.clone(),
        tone: |_| Tone::Plain,
    },
];

/// Where the names and the columns are.
struct Layout {
    name: usize,
    other: usize,
    columns: usize,
}

/// As many columns as there is room for beside the names.
fn arrange(rows: &[Row], width: usize) -> Layout {
    let mut columns = 0;
    let mut used = 2;
    for column in &COLUMNS {
        // The state is always there.
        if columns > 0 && used + column.width + 1 + NAMES_MIN.min(width / 3) > width {
            break;
        }
        used += column.width + 1;
        columns += 1;
    }
    let left = width.saturating_sub(used);
    let longest = rows.iter().map(|row| wide(&row.name)).max().unwrap_or(0);
    if left < NAMES_MIN {
        return Layout {
            name: left,
            other: 0,
            columns,
        };
    }
    let targets = rows.iter().map(|row| wide(&row.other)).max().unwrap_or(0);
    let limit = NAME_MAX.max(left.saturating_sub(targets + 1));
    let name = longest.max("MIRROR".len()).min(limit);
    Layout {
        name,
        other: (left - name - 1).min(targets.max("TARGET".len())),
        columns,
    }
}

fn draw_table(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let layout = arrange(&screen.rows, width);
    let heading = Style::default().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    let mut at = 2;
    let other = if layout.other == 0 { "" } else { "TARGET" };
    buffer.set_style(cut(area, 1).0, heading);
    at = cell(buffer, area, at, "MIRROR", layout.name, false, heading);
    if layout.other > 0 {
        at = cell(buffer, area, at, other, layout.other, false, heading);
    }
    for column in &COLUMNS[..layout.columns] {
        at = cell(
            buffer,
            area,
            at,
            column.title,
            column.width,
            column.is_number,
            heading,
        );
    }
    let visible = usize::from(area.height.saturating_sub(1));
    let selected = screen.selected_at();
    let first = (selected + 1).saturating_sub(visible);
    for (line, row) in screen.rows.iter().enumerate().skip(first).take(visible) {
        let below = (line - first + 1) as u16;
        let area = cut(area, below).1;
        draw_row(row, &layout, line == selected, area, buffer);
    }
}

fn draw_row(row: &Row, layout: &Layout, is_selected: bool, area: Rect, buffer: &mut Buffer) {
    let plain = Style::default();
    if is_selected {
        put(buffer, area, 0, ">", plain.add_modifier(Modifier::BOLD));
    }
    let mut at = 2;
    if layout.other == 0 {
        let both = match row.other.is_empty() {
            true => row.name.clone(),
            false => format!("{} > {}", row.name, row.other),
        };
        at = cell(buffer, area, at, &both, layout.name, false, plain);
    } else {
        at = cell(buffer, area, at, &row.name, layout.name, false, plain);
        at = cell(buffer, area, at, &row.other, layout.other, false, plain);
    }
    for column in &COLUMNS[..layout.columns] {
        let text = (column.text)(row);
        let style = style((column.tone)(row));
        at = cell(buffer, area, at, &text, column.width, column.is_number, style);
    }
    if is_selected {
        let line = cut(area, 1).0;
        buffer.set_style(line, plain.add_modifier(Modifier::REVERSED));
    }
}

/// What there is to say about the selected row. Gives what is left of the area.
fn draw_details(screen: &Screen, area: Rect, buffer: &mut Buffer) -> Rect {
    if area.height < 3 {
        return area;
    }
    let problems = screen.problems.iter().map(|text| (Tone::Bad, text.as_str()));
    let selected = screen.selected();
    let details = selected.into_iter().flat_map(|row| &row.details);
    let told = problems.chain(details.map(|(tone, text)| (*tone, text.as_str())));
    let lines: Vec<(Tone, String)> = told
        .flat_map(|(tone, text)| {
            wrap(text, area.width.into())
                .into_iter()
                .map(move |line| (tone, line))
        })
        .collect();
    if lines.is_empty() {
        return area;
    }
    let wanted = u16::try_from(lines.len() + 1).unwrap_or(u16::MAX);
    let height = wanted.min(match area.height {
        // Too little for both: what was selected is what is looked at.
        0..8 => area.height,
        height => height - height / 3,
    });
    let (own, rest) = cut(area, height);
    let (heading, body) = cut(own, 1);
    rule(selected.map_or("", |row| &row.title), heading, buffer);
    for (at, (tone, line)) in lines.iter().take(body.height.into()).enumerate() {
        put(buffer, cut(body, at as u16).1, 0, line, style(*tone));
    }
    rest
}

/// What happened, the newest at the bottom.
fn draw_changes(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    if area.height < 2 || screen.rows.is_empty() {
        return;
    }
    let (heading, body) = cut(area, 1);
    rule("last changes", heading, buffer);
    let visible = usize::from(body.height);
    let skipped = screen.changes.len().saturating_sub(visible);
    for (line, change) in screen.changes.iter().skip(skipped).enumerate() {
        let area = cut(body, line as u16).1;
        change_line(change, area).render(cut(area, 1).0, buffer);
    }
}

fn change_line(change: &Change, area: Rect) -> Line<'_> {
    let mut room = usize::from(area.width).saturating_sub(change.time.len() + 1);
    let about = match change.about.as_str() {
        "" => String::new(),
        about => fit(about, (room / 2).saturating_sub(2)) + ": ",
    };
    room = room.saturating_sub(wide(&about));
    Line::from(vec![
        Span::styled(format!("{} ", change.time), style(Tone::Quiet)),
        Span::raw(about),
        Span::styled(fit(&change.text, room), style(change.tone)),
    ])
}

/// A question, the outcome of an order, or the keys.
fn draw_keys(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let strong = Style::default().add_modifier(Modifier::BOLD);
    if let Some((_, question)) = &screen.prompt {
        buffer.set_style(area, strong.add_modifier(Modifier::REVERSED));
        put(
            buffer,
            area,
            0,
            &fit_end(question, width),
            strong.add_modifier(Modifier::REVERSED),
        );
    } else if let Some((tone, text)) = &screen.message {
        put(buffer, area, 0, &fit(text, width), style(*tone));
    } else {
        let long = "q quit  p pause  r resume  s scan again  a approve  up/down select";
        let keys = if width < long.len() {
            "q p r s a up/down"
        } else {
            long
        };
        put(buffer, area, 0, &fit(keys, width), style(Tone::Quiet));
    }
}

/// A line across with a title in it.
fn rule(title: &str, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    put(buffer, area, 0, &"─".repeat(width), style(Tone::Quiet));
    if !title.is_empty() {
        let title = format!(" {} ", fit(title, width.saturating_sub(6)));
        put(
            buffer,
            area,
            2,
            &title,
            Style::default().add_modifier(Modifier::BOLD),
        );
    }
}

/// Colours that are readable on light and dark grounds alike; nothing is said by colour alone.
fn style(tone: Tone) -> Style {
    let plain = Style::default();
    match tone {
        Tone::Plain => plain,
        Tone::Good => plain.fg(Color::Green),
        Tone::Busy => plain.fg(Color::Cyan),
        Tone::Warning => plain.fg(Color::Magenta),
        Tone::Bad => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Quiet => plain.add_modifier(Modifier::DIM),
    }
}

/// Writes into a column, and gives where the next begins.
fn cell(
    buffer: &mut Buffer,
    area: Rect,
    at: usize,
    text: &str,
    width: usize,
    is_number: bool,
    style: Style,
) -> usize {
    let text = fit(text, width);
    let indent = if is_number { width - wide(&text) } else { 0 };
    put(buffer, area, (at + indent) as u16, &text, style);
    at + width + 1
}

/// Writes into the first line of an area, from a column on.
fn put(buffer: &mut Buffer, area: Rect, at: u16, text: &str, style: Style) {
    if area.height > 0 && at < area.width {
        buffer.set_stringn(area.x + at, area.y, text, usize::from(area.width - at), style);
    }
}

/// The first lines of an area, and the others.
fn cut(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let top = Rect { height, ..area };
    let below = Rect {
        y: area.y + height,
        height: area.height - height,
        ..area
    };
    (top, below)
}

/// How many columns of a terminal a text takes.
fn wide(text: &str) -> usize {
    Span::raw(text).width()
}

/// The beginning of a text, with a sign that something is missing.
fn fit(text: &str, width: usize) -> String {
    if wide(text) <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        let own = wide(c.encode_utf8(&mut [0; 4]));
        if used + own > width {
            break;
        }
        used += own;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// A text in lines, broken between words where there are any; what follows the first line is set in.
fn wrap(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "    ";
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        let mut word = word.to_owned();
        if wide(&line) + wide(word.trim_end()) > width && !line.trim().is_empty() {
            lines.push(std::mem::replace(&mut line, INDENT.to_owned()));
        }
        // Longer than a line by itself.
        while wide(&line) + wide(word.trim_end()) > width {
            let mut room = width.saturating_sub(wide(&line)).max(1);
            let fits = |c: &char| {
                let own = wide(c.encode_utf8(&mut [0; 4]));
                let is_room = own <= room;
                room = room.saturating_sub(own);
                is_room
            };
            let part: String = word.chars().take_while(fits).collect();
            if part.is_empty() {
                break;
            }
            word.drain(..part.len());
            lines.push(std::mem::replace(&mut line, INDENT.to_owned()) + &part);
        }
        line += &word;
    }
    if !line.trim().is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// The end of a text, where that matters more.
fn fit_end(text: &str, width: usize) -> String {
    if wide(text) <= width {
        return text.to_owned();
    }
    let backwards: String = text.chars().rev().collect();
    fit(&backwards, width).chars().rev().collect()
}
