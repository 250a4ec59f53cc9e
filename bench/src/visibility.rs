//! How long after the answer to a command a reader sees what it did, over HTTP.
//!
//! At 200 commands a second, and at half of what the whole system takes. Two hundred a second are watched,
//! in turns revisions and new posts. A revision can be seen once the projector has brought it into the
//! views; a new post at once, since what the views have not got is folded from the log. So the aims are
//! about revisions.

use std::time::Duration;

use crate::Args;
use crate::figures::{median, percentile};
use crate::report::{Aim, Report};
use crate::schedule::{self, Done, Watched};
use crate::system::Whole;

/// Each is revised every few seconds only, so that one revision is long seen before the next.
const REVISED_POSTS: usize = 2000;
const WARM_UP: Duration = Duration::from_secs(15);

/// How many commands there are, and what is wanted of them.
#[derive(Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: u64,
    /// What the figures are known by.
    pub(crate) name: &'static str,
    /// In milliseconds, of the median and of the 99th percentile.
    pub(crate) aims: [f64; 2],
}

pub(crate) async fn measure(
    whole: &Whole,
    rate: &Rate,
    args: &Args,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (name, per_second) = (rate.name, rate.per_second);
    report.progress(&format!("what becomes visible when, at {per_second} commands/s"));
    let posts = schedule::publish(whole, REVISED_POSTS).await?;
    whole.until_seen().await?;
    let round = Duration::from_secs(args.seconds.into());
    let duration = WARM_UP + round * u32::try_from(args.rounds)?;
    let done = schedule::run(whole, per_second, duration, posts).await?;
    let rounds = in_rounds(&done, round, args.rounds);

    report.heading(&format!(
        "From a command's answer to a reader, at {per_second} commands/s, medians of {} × {} s",
        args.rounds, args.seconds
    ));
    let key = |what: &str| format!("visible_{name}_{what}");
    let of = |figure: &dyn Fn(&[Done]) -> f64| {
        median(&rounds.iter().map(|round| figure(round)).collect::<Vec<_>>())
    };
    let answered = of(&|round| round.len() as f64 / f64::from(args.seconds));
    report.figure(&key("answered_per_s"), "answered", answered, "commands/s");
    let [p50, p99] = rate.aims.map(Aim::AtMost);
    let of_revised = |hundredth| of(&|round| percentile(&times(round, revised), hundredth));
    report.aimed(&key("p50_ms"), "a revision, median", of_revised(50), "ms", p50);
    report.aimed(&key("p99_ms"), "a revision, 99th percentile", of_revised(99), "ms", p99);
    let of_new = |hundredth| of(&|round| percentile(&times(round, new), hundredth));
    report.figure(&key("new_p50_ms"), "a new post, median", of_new(50), "ms");
    report.figure(&key("new_p99_ms"), "a new post, 99th percentile", of_new(99), "ms");
    Ok(())
}

/// What was due in each round; the rounds begin after the warming up.
fn in_rounds(done: &[Done], round: Duration, count: usize) -> Vec<Vec<Done>> {
    let mut rounds = vec![Vec::new(); count];
    for done in done {
        let since = done.due.checked_sub(WARM_UP);
        let number = since.map(|since| (since.as_secs_f64() / round.as_secs_f64()) as usize);
        if let Some(round) = number.and_then(|number| rounds.get_mut(number)) {
            round.push(*done);
        }
    }
    rounds
}

fn times(round: &[Done], of_kind: fn(Watched) -> Option<Duration>) -> Vec<Duration> {
    round.iter().filter_map(|done| done.watched.and_then(of_kind)).collect()
}

fn revised(watched: Watched) -> Option<Duration> {
    match watched {
        Watched::Revised(after) => Some(after),
        Watched::New(_) => None,
    }
}

fn new(watched: Watched) -> Option<Duration> {
    match watched {
        Watched::New(after) => Some(after),
        Watched::Revised(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_counts_in_the_round_in_which_it_was_due() {
        let done = |due| Done { due, took: Duration::ZERO, watched: None };
        let due = |seconds| done(WARM_UP + Duration::from_secs(seconds));
        let early = done(WARM_UP / 2);
        let done = [early, due(0), due(7), due(8), due(23), due(24)];
        let rounds = in_rounds(&done, Duration::from_secs(8), 3);
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
    }
}
