//! Every number that the projector tells of itself.

use service_runtime::metrics::MetricKind::{Counter, Gauge, Histogram};
use service_runtime::metrics::{Metric, MetricKind};

pub(crate) const WATERMARK: &str = "projector_watermark";
pub(crate) const HEAD: &str = "projector_head";
pub(crate) const EVENTS: &str = "projector_events_applied_total";
pub(crate) const BATCHES: &str = "projector_batches_total";
pub(crate) const BATCH_SIZE: &str = "projector_batch_size";
pub(crate) const VISIBLE: &str = "projector_commit_to_visible_seconds";
pub(crate) const JUDGEMENTS: &str = "projector_judgements_total";
pub(crate) const TAILED: &str = "projector_tailed_partitions";
pub(crate) const EPOCHS: &str = "projector_epochs_total";
pub(crate) const UNFILLED: &str = "projector_unfilled_below";
pub(crate) const HALTED: &str = "projector_halted_partitions";
pub(crate) const QUARANTINED: &str = "projector_quarantined_pages";
pub(crate) const QUARANTINES: &str = "projector_quarantines_total";
pub(crate) const UNDECODABLE: &str = "projector_undecodable_messages_total";
pub(crate) const UNCOPIED: &str = "projector_uncopied_messages";
pub(crate) const REBUILD_DONE: &str = "projector_rebuild_events_done";
pub(crate) const REBUILD_EXPECTED: &str = "projector_rebuild_events_expected";
pub(crate) const REBUILD_PARTS_DONE: &str = "projector_rebuild_parts_done";
pub(crate) const REBUILD_PARTS_EXPECTED: &str = "projector_rebuild_parts_expected";
pub(crate) const REBUILD_REMAINING: &str = "projector_rebuild_remaining_seconds";
pub(crate) const GENERATIONS: &str = "projector_generations";
pub(crate) const SWITCHES: &str = "projector_switches_total";
pub(crate) const VERIFIED: &str = "projector_verified_pages_total";
pub(crate) const DIFFERENCES: &str = "projector_verified_differences_total";

/// All of them.
pub const METRICS: &[Metric] = &[
    metric(
        WATERMARK,
        Gauge,
        &["partition"],
        "Position up to which the views of a partition have come",
    ),
    metric(HEAD, Gauge, &["partition"], "Position of the last event of a partition in the log"),
    metric(EVENTS, Counter, &[], "Events brought into the views by this process"),
    metric(BATCHES, Counter, &[], "Batches taken from Kafka"),
    metric(BATCH_SIZE, Histogram, &[], "Messages in a batch taken from Kafka"),
    metric(
        VISIBLE,
        Histogram,
        &[],
        "From the recording of an event to its being visible in the views, once for each run of events: its oldest",
    ),
    metric(
        JUDGEMENTS,
        Counter,
        &["judgement"],
        "Looks at the next message of a partition: applied (it follows), duplicate, gap, fork",
    ),
    metric(
        TAILED,
        Gauge,
        &[],
        "Partitions that this process reads from the log, since Kafka is silent",
    ),
    metric(
        EPOCHS,
        Counter,
        &[],
        "Partitions begun anew, because their views were lost or not of this log",
    ),
    metric(
        UNFILLED,
        Gauge,
        &["partition"],
        "Position below which a partition is still to be filled after a loss; 0 if it is whole",
    ),
    metric(
        HALTED,
        Gauge,
        &[],
        "Partitions that stand still, because Kafka has events that the log has not",
    ),
    metric(QUARANTINED, Gauge, &[], "Pages set aside, because an event of theirs cannot be folded"),
    metric(
        QUARANTINES,
        Counter,
        &[],
        "Events on account of which this process was first to set a page aside",
    ),
    metric(
        UNDECODABLE,
        Counter,
        &["reason"],
        "Messages on the topic that are not ours, or damaged: headers, value, source, partition",
    ),
    metric(
        UNCOPIED,
        Gauge,
        &[],
        "Messages that are not ours and wait to be copied; no offset is committed past them",
    ),
    metric(
        REBUILD_DONE,
        Gauge,
        &["work"],
        "Events that a rebuild, its catching up, a verification, or the filling of what was lost has behind it",
    ),
    metric(REBUILD_EXPECTED, Gauge, &["work"], "Events that it has to do with in all"),
    metric(
        REBUILD_PARTS_DONE,
        Gauge,
        &[],
        "Parts of the newest generation that have been built, whoever builds it",
    ),
    metric(REBUILD_PARTS_EXPECTED, Gauge, &[], "Parts that it has in all"),
    metric(
        REBUILD_REMAINING,
        Gauge,
        &["work"],
        "How long it will take from now on, if it goes on as it has; of what this process itself does",
    ),
    metric(GENERATIONS, Gauge, &["state"], "Generations of our version of the views"),
    metric(
        SWITCHES,
        Counter,
        &[],
        "Switches of all readers to another generation that this process has made",
    ),
    metric(VERIFIED, Counter, &[], "Pages of the active generation that were held against the log"),
    metric(
        DIFFERENCES,
        Counter,
        &[],
        "Pages that were not what the log makes of them, and have been folded anew",
    ),
];

const fn metric(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_that_tells_its_kind() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for Metric { name, kind, .. } in METRICS {
            assert!(name.starts_with("projector_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
        }
    }
}
