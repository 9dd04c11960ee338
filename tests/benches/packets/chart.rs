//! The chart: the cost of a dropped packet by the length of the list, a panel for each
//! family, both axes logarithmic.

use std::fmt::Write as _;

use exogate_tests::lab::Family;

use super::{AZURE, Row};
use crate::{
    rig::{Order, Share, family_name},
    support::middle,
};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const LEGEND: f64 = 190.0;
/// Nanoseconds and prefixes at the ends of the axes.
const COSTS: [f64; 2] = [10.0, 20_000.0];
const PREFIXES: [f64; 2] = [20.0, 2_000_000.0];
/// Told apart by those who see few colours, too (Okabe and Ito).
const COLOURS: [&str; 9] = [
    "#999999", "#000000", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9", "#009e73", "#0072b2",
    "#b8a800",
];

/// Not drawn, as Azure's crowded list, since it would lie upon its neighbour.
const UNREAD: &str = "exogate, events unread";

/// An SVG document.
pub fn draw(rows: &[Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.kind.share == Share::Dropped && row.kind.order == Order::Random)
        .filter(|row| row.kind.prefixes != AZURE && row.contender != UNREAD)
        .inspect(|row| {
            if !names.contains(&row.contender) {
                names.push(row.contender);
            }
        })
        .collect();
    let mut svg = String::new();
    let width = 2.0 * (WIDTH + LEFT) + LEGEND + 20.0;
    let height = HEIGHT + TOP + 50.0;
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (number, family) in Family::ALL.into_iter().enumerate() {
        let x = LEFT + number as f64 * (WIDTH + LEFT);
        panel(&mut svg, x, family);
        for (name, colour) in names.iter().zip(COLOURS) {
            line(&mut svg, x, colour, &rows, name, family);
        }
    }
    for (number, (name, colour)) in names.iter().zip(COLOURS).enumerate() {
        let (x, y) = (2.0 * (WIDTH + LEFT) + 15.0, TOP + 15.0 + 20.0 * number as f64);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{y}\">{name}</text>",
            y - 4.0,
            x + 10.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Frame, title and grid.
fn panel(svg: &mut String, x: f64, family: Family) {
    let title = family_name(family);
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" \
         stroke=\"black\"/>\n\
         <text x=\"{}\" y=\"30\" text-anchor=\"middle\" font-size=\"14\">{title}: ns per dropped \
         packet, by prefixes</text>",
        x + WIDTH / 2.0
    );
    for cost in [10, 30, 100, 300, 1_000, 3_000, 10_000] {
        let y = down(f64::from(cost));
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {y}h{WIDTH}\" stroke=\"#dddddd\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{cost}</text>",
            x - 5.0,
            y + 4.0
        );
    }
    for prefixes in [34, 1_000, 54_000, 1_000_000] {
        let at = x + across(f64::from(prefixes));
        let _ = writeln!(
            svg,
            "<path d=\"M{at} {TOP}v{HEIGHT}\" stroke=\"#dddddd\"/>\
             <text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{prefixes}</text>",
            TOP + HEIGHT + 18.0
        );
    }
}

/// One contender in one panel.
fn line(svg: &mut String, x: f64, colour: &str, rows: &[&Row], name: &str, family: Family) {
    let points: Vec<(f64, f64)> = rows
        .iter()
        .filter(|row| row.contender == name && row.family == family)
        .map(|row| (x + across(row.kind.prefixes as f64), down(middle(&row.nanoseconds))))
        .collect();
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for (x, y) in points {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
    }
}

fn across(prefixes: f64) -> f64 {
    WIDTH * share(prefixes, PREFIXES)
}

fn down(cost: f64) -> f64 {
    TOP + HEIGHT * (1.0 - share(cost, COSTS))
}

fn share(value: f64, [least, most]: [f64; 2]) -> f64 {
    (value / least).ln() / (most / least).ln()
}
