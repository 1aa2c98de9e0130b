//! `trackpost domain stats`: counts of a domain as columns.

use super::{print_json, table};
use crate::ops::{DayStats, DomainStats};
use serde_json::Value;

const HEADINGS: [&str; 12] = [
    "DAY",
    "SENT",
    "DELIVERED",
    "BOUNCED",
    "OPENED",
    "BY MACHINES",
    "OPEN RATE",
    "HUMAN",
    "CLICKED",
    "BY MACHINES",
    "CLICK RATE",
    "HUMAN",
];

/// Prints the server's answer.
pub fn show(answer: &Value, json: bool) {
    match serde_json::from_value::<DomainStats>(answer.clone()) {
        Ok(stats) if !json => print(&stats),
        _ => print_json(answer),
    }
}

fn print(stats: &DomainStats) {
    let mut rows: Vec<_> = stats.days.iter().filter(|day| !day.is_empty()).map(row).collect();
    if rows.is_empty() {
        eprintln!("{}: nothing happened in the last {} days", stats.domain, stats.days.len());
        return;
    }
    rows.push(row(&stats.total));
    table::print(&HEADINGS, &rows);
    if !stats.links.is_empty() {
        let links = stats.links.iter().map(|link| {
            let url = link.url.as_deref().map_or_else(|| "(not known any more)".to_owned(), table::clean);
            vec![link.clicked_human.to_string(), link.clicked_machine.to_string(), url]
        });
        println!();
        table::print(&["CLICKED", "BY MACHINES", "LINK"], &links.collect::<Vec<_>>());
    }
    if !stats.tags.is_empty() {
        let tags = stats.tags.iter().map(|tag| {
            let counts = [tag.sent, tag.opened_human, tag.clicked_human].map(|count| count.to_string());
            [&counts[..], &[table::clean(&tag.tag)]].concat()
        });
        println!();
        table::print(&["SENT", "OPENED BY", "CLICKED BY", "TAG"], &tags.collect::<Vec<_>>());
    }
    if !stats.untracked.is_empty() {
        let reasons = stats.untracked.iter().map(|skip| vec![skip.messages.to_string(), table::clean(&skip.reason)]);
        println!();
        table::print(&["MESSAGES", "NOT TRACKED"], &reasons.collect::<Vec<_>>());
    }
}

fn row(day: &DayStats) -> Vec<String> {
    let counts = |of: &[u64]| of.iter().map(u64::to_string).collect::<Vec<_>>();
    let mut cells = vec![day.day.clone().unwrap_or_else(|| "all".to_owned())];
    cells.extend(counts(&[day.sent, day.delivered, day.bounced, day.opened_human, day.opened_machine]));
    cells.extend([percent(day.open_rate), percent(day.open_rate_human)]);
    cells.extend(counts(&[day.clicked_human, day.clicked_machine]));
    cells.extend([percent(day.click_rate), percent(day.click_rate_human)]);
    cells
}

fn percent(rate: f64) -> String {
    format!("{:.1} %", rate * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_for_each_heading() {
        let day = DayStats { sent: 7, open_rate: 0.1234, ..DayStats::default() };
        let cells = row(&day);
        assert_eq!((cells.len(), &*cells[0], &*cells[1], &*cells[6]), (HEADINGS.len(), "all", "7", "12.3 %"));
    }
}
