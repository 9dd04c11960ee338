//! A day of Graph's traffic in less than a minute, or in ten with `EXOGATE_SOAK`: many
//! subscriptions of different pace, and a server that has the day of its life.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use exogate_tests::{agent::relay::GRAPH, load::Load, pega::Mood};

use super::{SOON, Setting};

/// Subscriptions that notify, and the pause after each notification: a few chatter, most
/// have little to say.
const PACES: [(usize, Duration); 3] = [
    (4, Duration::from_millis(10)),
    (20, Duration::from_millis(150)),
    (60, Duration::from_millis(900)),
];
/// An answer of Pega that is longer than Graph would wait.
const SLOW: Duration = Duration::from_millis(3500);

fn is_soak() -> bool {
    env::var_os("EXOGATE_SOAK").is_some()
}

#[test]
fn a_day_of_graph_goes_well_whatever_the_server_does() {
    let day = Duration::from_secs(if is_soak() { 600 } else { 20 });
    let setting = &mut Setting::started();
    let mut first = 0;
    let loads = PACES.map(|(count, pace)| {
        let load = Load::start_at(&setting.lab, GRAPH, first..first + count, pace).unwrap();
        first += count;
        load
    });
    let down = || None;
    let hours = [
        Some(Mood::Well),
        down(),
        Some(Mood::Slow(SLOW)),
        Some(Mood::Answers(500, None)),
        Some(Mood::Well),
        Some(Mood::Answers(429, Some(1))),
        down(),
        Some(Mood::Well),
    ];
    let hour = day / u32::try_from(hours.len()).unwrap();
    for mood in hours {
        let end = Instant::now() + hour;
        match &mood {
            Some(mood) => setting.pega.feel(mood.clone()),
            None => setting.pega.stop(),
        }
        thread::sleep(end.saturating_duration_since(Instant::now()));
        if mood.is_none() {
            setting.pega.resume().unwrap();
        }
    }
    let reports = loads.map(|load| load.stop().unwrap());
    let took: Vec<_> = reports.iter().flat_map(|report| &report.took).collect();
    let slow = took.iter().filter(|took| ***took > Duration::from_secs(1)).count();
    let longest = took.iter().max().unwrap();
    println!("{} notifications, {slow} answered after 1 s, the last after {longest:?}", took.len());
    for report in &reports {
        assert_eq!((report.broken, &report.refused), (0, &Default::default()));
    }
    let patience = SOON * 3 + day / 10;
    for report in &reports {
        let result = setting.pega.wait_until("all of it arrives", patience, |received| {
            report.hold_against(received, GRAPH).is_ok()
        });
        result.unwrap_or_else(|_| {
            panic!("{:?}", report.hold_against(&setting.pega.received(), GRAPH))
        });
    }
    let over = |over| setting.metric("exogate_relay_slow_answers_ratio", &[("over", over)]);
    assert_eq!((over("3s"), over("10s")), (0.0, 0.0), "by the agent's own count");
    assert_eq!(setting.metric("exogate_spool_dead_letters", &[]), 0.0);
    if is_soak() {
        assert_eq!(slow, 0, "answers that took more than 1 s");
    }
}
