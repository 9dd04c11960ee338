//! The tables of the report: one for each list and family, and two of all of them, which are
//! what readers look at first. Contenders come in their order, with a row each.

use super::{Row, scope::Scope};
use crate::{
    rig::{Order, Share, family_name},
    support::{Report, figure, middle, thousands},
};

/// What packets of each kind took with one list and family.
pub fn of_list(report: &mut Report, scope: &Scope, names: &[&str], rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let head = |row: &Row| {
        let pace = scope.pace(&row.kind);
        format!(
            "{}, {}; {} × {} ms",
            row.kind.share.name(),
            row.kind.order.name(),
            pace.rounds,
            pace.time.as_millis()
        )
    };
    let title = format!("**{}: ns per packet, median (least..most)**", list(first));
    let rows: Vec<&Row> = rows.iter().collect();
    table(report, &title, names, &rows, head, |row| figure(&row.nanoseconds, 1));
}

/// What a dropped packet of a random source took with each list.
pub fn summary(report: &mut Report, names: &[&str], rows: &[Row]) {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| (row.kind.share, row.kind.order) == (Share::Dropped, Order::Random))
        .collect();
    let title = "**All dropped, random sources: ns per packet, median**";
    table(report, title, names, &rows, list, |row| format!("{:.1}", middle(&row.nanoseconds)));
    let times = |row: &Row| {
        let exogate = rows.iter().find(|one| one.contender == "exogate" && list(one) == list(row));
        exogate.map_or_else(String::new, |exogate| format!("{:.2}", row.times(exogate)))
    };
    let title = "**All dropped, random sources: times exogate's cost, median of the rounds**";
    table(report, title, names, &rows, list, times);
}

fn list(row: &Row) -> String {
    format!("{} prefixes, {}", thousands(row.kind.prefixes), family_name(row.family))
}

/// A row for each contender, and a column for each head that rows have.
fn table(
    report: &mut Report,
    title: &str,
    names: &[&str],
    rows: &[&Row],
    head: impl Fn(&Row) -> String,
    cell: impl Fn(&Row) -> String,
) {
    let mut heads: Vec<String> = Vec::new();
    for row in rows {
        let head = head(row);
        if !heads.contains(&head) {
            heads.push(head);
        }
    }
    let columns = ["contender"].into_iter().chain(heads.iter().map(String::as_str));
    report.table(title, &columns.collect::<Vec<_>>());
    for name in names {
        let mine: Vec<&&Row> = rows.iter().filter(|row| row.contender == *name).collect();
        if mine.is_empty() {
            continue;
        }
        let found = |wanted: &String| mine.iter().find(|row| head(row) == *wanted);
        let cells = heads.iter().map(|head| found(head).map_or("-".to_owned(), |row| cell(row)));
        report.row(&[(*name).to_owned()].into_iter().chain(cells).collect::<Vec<_>>());
    }
}
