//! What is on the screen.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row, Sparkline, Table},
};

use super::Model;
use crate::{
    admin::api::{Blocked, Feed, Status},
    cli::since,
};

/// Columns left of a graph.
const LABEL: u16 = 40;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let verdicts = model.rates.latest(0).count();
    let relay = model.status.relay.as_ref().map_or(0, |relay| relay.routes.len());
    let [head, rates, blocked, feeds, routes] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(rows(verdicts)),
        Constraint::Min(5),
        Constraint::Length(rows(model.status.feeds.len())),
        Constraint::Length(if relay == 0 { 0 } else { rows(relay) }),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(model)), head);
    draw_rates(frame, rates, model);
    draw_blocked(frame, blocked, &model.status);
    draw_feeds(frame, feeds, &model.status.feeds);
    draw_routes(frame, routes, model);
}

/// Lines of a block with a title and so many rows.
fn rows(count: usize) -> u16 {
    u16::try_from(count.max(1)).unwrap_or(u16::MAX).saturating_add(1)
}

fn block(title: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).title(title)
}

fn heading(model: &Model) -> Vec<Line<'static>> {
    let status = &model.status;
    let mode = match status.mode.as_str() {
        "enforce" => Span::from("enforce").green().bold(),
        mode => Span::from(format!("{mode}: NOTHING IS DROPPED")).yellow().bold(),
    };
    let interfaces: Vec<_> = status
        .interfaces
        .iter()
        .map(|interface| format!("{} ({})", interface.name, interface.attached))
        .collect();
    let on = match interfaces.as_slice() {
        [] => " on no interface".to_owned(),
        names => format!(" on {}", names.join(", ")),
    };
    let first = Line::from(vec![
        Span::from(format!("exogate {}  ", status.version)).bold(),
        mode,
        Span::from(on),
        Span::from("   q quits").dim(),
    ]);
    let mut notes = Vec::new();
    if let Some(problem) = &model.gone {
        notes.push(format!("OLD: {problem}"));
    }
    if !status.waiting_for.is_empty() {
        notes.push(format!("NOT READY: waiting for {}", status.waiting_for.join(", ")));
    }
    if let Some(until) = &status.confirm_by {
        notes.push(format!("TO BE CONFIRMED until {until}"));
    }
    if status.hold {
        notes.push("UPDATES ON HOLD".to_owned());
    }
    vec![first, Line::from(notes.join("; ")).red().bold()]
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let title = block(" packets per second ");
    let inner = title.inner(area);
    frame.render_widget(title, area);
    let width = inner.width.saturating_sub(LABEL);
    for ((verdict, now, latest), line) in model.rates.latest(width.into()).zip(inner.rows()) {
        let (action, reason) = verdict;
        let color = match action.as_str() {
            "pass" => Color::Green,
            "drop" => Color::Red,
            _ => Color::Yellow,
        };
        let [label, graph] =
            Layout::horizontal([Constraint::Length(LABEL), Constraint::Min(0)]).areas(line);
        let text = format!("{action:<10} {reason:<12} {now:>14}");
        frame.render_widget(Paragraph::new(text), label);
        // The newest is always at the right.
        let missing = usize::from(width).saturating_sub(latest.len());
        let data: Vec<u64> = std::iter::repeat_n(0, missing).chain(latest).collect();
        frame.render_widget(Sparkline::default().data(data).style(Style::new().fg(color)), graph);
    }
}

fn draw_blocked(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let row = |blocked: &Blocked| {
        let nearest = blocked.nearest.as_ref().map_or("none is near".to_owned(), |nearest| {
            format!("{} ({})", nearest.prefix, nearest.source)
        });
        Row::new([
            blocked.address.to_string(),
            blocked.packets.to_string(),
            blocked.port.to_string(),
            since(&blocked.last_seen),
            nearest,
        ])
    };
    let widths = [
        Constraint::Length(28),
        Constraint::Length(12),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Min(20),
    ];
    let table = Table::new(status.blocked.iter().map(row), widths)
        .header(Row::new(["source", "packets", "port", "last", "nearest known prefix"]).dim())
        .block(block(" most active refused sources "));
    frame.render_widget(table, area);
}

fn draw_feeds(frame: &mut Frame<'_>, area: Rect, feeds: &[Feed]) {
    let row = |feed: &Feed| {
        let version = feed.version.as_deref().unwrap_or("unknown version");
        let age = feed.last_success.as_deref().map_or("never".to_owned(), since);
        let problem = feed.problem.as_ref().map_or("", |problem| &problem.reason);
        let row = Row::new([
            feed.feed.clone(),
            version.to_owned(),
            feed.provenance.clone(),
            format!("age {age}"),
            problem.to_owned(),
        ]);
        if problem.is_empty() { row } else { row.red() }
    };
    let widths = [
        Constraint::Length(20),
        Constraint::Length(16),
        Constraint::Length(16),
        Constraint::Length(12),
        Constraint::Min(0),
    ];
    let table = Table::new(feeds.iter().map(row), widths).block(block(" feeds "));
    frame.render_widget(table, area);
}

fn draw_routes(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let Some(relay) = &model.status.relay else { return };
    let rows = relay.routes.iter().map(|route| {
        let took = |share, name: &str| match model.latencies.quantile(&route.name, share) {
            Some(time) => format!("{name} {time}"),
            None => format!("{name} -"),
        };
        let row = Row::new([
            route.name.clone(),
            format!("{} waiting", route.waiting),
            format!("{} dead", route.dead_letters),
            took(0.5, "p50"),
            took(0.99, "p99"),
            format!("{} of {} silent", route.silent.len(), route.subscriptions),
        ]);
        if route.dead_letters > 0 { row.red() } else { row }
    });
    let widths = [
        Constraint::Length(14),
        Constraint::Length(14),
        Constraint::Length(10),
        Constraint::Length(13),
        Constraint::Length(13),
        Constraint::Min(0),
    ];
    let table = Table::new(rows, widths).block(block(" relay: spool and answers "));
    frame.render_widget(table, area);
}
