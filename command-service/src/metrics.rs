//! Every number that this service tells about itself, beside those of its HTTP server. They are counted where
//! they arise.

use service_runtime::{Metric, MetricKind};

pub const METRICS: &[Metric] = &[
    counter("commands_total", &["command", "outcome"], "Commands, by what became of them"),
    counter(
        "command_retries_total",
        &["reason"],
        "Decisions made anew, because another command came first or a slug was taken",
    ),
    counter(
        "command_confirmations_total",
        &["outcome"],
        "Decisions that record nothing, held against the log: confirmed, or stale and made anew",
    ),
    histogram(
        "command_turn_seconds",
        "Seconds from the arrival of a command to its turn, behind other commands on the same post",
    ),
    counter(
        "stream_loads_total",
        &["start"],
        "Number of posts loaded from Postgres, by where the load starts: snapshot or beginning",
    ),
    counter("stream_load_events_total", &[], "Number of events read to load posts"),
    histogram("stream_load_seconds", "Seconds from the start of a load to its end"),
    counter(
        "snapshots_total",
        &["outcome"],
        "Number of snapshots of posts: written, failed, or dropped because too many wait",
    ),
    counter("recent_reads_total", &["outcome"], "Posts looked for in memory: hit or miss"),
    counter(
        "requests_rejected_total",
        &["limit"],
        "Number of requests rejected for their size in flight: beyond the total, or the share of their author",
    ),
    gauge(
        "requests_in_flight_bytes",
        "Number of bytes of all requests in flight that have arrived",
    ),
    counter(
        "append_turned_away_total",
        &["reason"],
        "Commits not taken: the queue is full, or so slow that they would wait too long",
    ),
    gauge("append_queue_commits", "Commits that are not answered yet, queued or on their way"),
    gauge("append_queue_bytes", "The bytes of these commits"),
    histogram("append_wait_seconds", "How long a commit was queued before it was sent to Postgres"),
    histogram("append_call_seconds", "How long Postgres took for a batch, all attempts included"),
    histogram("append_batch_size", "Commits in a call"),
    counter(
        "append_resent_total",
        &[],
        "Batches sent again, because what became of them was not known",
    ),
    counter(
        "append_backends_terminated_total",
        &[],
        "Number of times a backend of Postgres was terminated, because its call had ended without an answer",
    ),
    gauge(
        "event_time_ahead_seconds",
        "Seconds from the clock of Postgres to the latest of the newest events; 0 unless it was set back",
    ),
    gauge("log_head", "The position of the last event of the store"),
    gauge("relay_active", "1 while this process carries the log to Kafka"),
    gauge("relay_cursor", "Up to here Kafka has the log, as the store knows it"),
    gauge("relay_lag_events", "How many events Kafka has not got yet, as the store knows it"),
    counter("relay_published_total", &[], "Events that Kafka has acknowledged"),
    counter(
        "relay_stubs_total",
        &[],
        "Number of events published without their payload, because Kafka rejects them",
    ),
    histogram("relay_delay_seconds", "From the recording of an event until Kafka has it"),
    counter(
        "relay_words_total",
        &["way"],
        "Notices between processes that something was recorded: sent or heard",
    ),
];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels: &[], help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, labels: &[], help }
}
