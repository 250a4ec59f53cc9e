//! The numbers that this service tells about itself.

use std::time::Duration;

use axum::http::StatusCode;
use http_api::layers::count_answer;
use metrics::{Counter, Histogram};
use service_runtime::{Metric, MetricKind};

pub const METRICS: &[Metric] = &[
    Metric {
        name: "reads_total",
        kind: MetricKind::Counter,
        labels: &["view", "source"],
        help: "Reads that were answered, by what they were answered from: memory, redis, log, or stale \
            for a copy in memory that nothing could renew",
    },
    Metric {
        name: "active_generation",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Which generation of the views readers are answered from",
    },
    Metric {
        name: "memory_bytes",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "What is kept in memory, as it is weighed",
    },
    Metric {
        name: "memory_entries",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "How many posts and slugs are kept in memory, stale copies included",
    },
    Metric {
        name: "memory_announcements_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Changes of posts that were heard of",
    },
    Metric {
        name: "memory_connections_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "How often announcements began to be heard, each time ending all that was kept before",
    },
    Metric {
        name: "folds_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Reads of the log for pages that Redis could not give",
    },
    Metric {
        name: "fold_duration_seconds",
        kind: MetricKind::Histogram,
        labels: &[],
        help: "Reading and folding such pages, waiting for a turn included",
    },
    Metric {
        name: "fills_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Offers to Redis of what was folded, by what became of them",
    },
    Metric {
        name: "log_reads_waiting",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Reads of the log that wait for their turn",
    },
    Metric {
        name: "log_reads_turned_away_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Reads of the log that found too many waiting before them",
    },
    Metric {
        name: "token_waits_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Reads that waited for the views to come as far as a consistency token demands: reached or timed_out",
    },
    Metric {
        name: "circuit_open",
        kind: MetricKind::Gauge,
        labels: &["server"],
        help: "Whether readers do not ask Redis or Postgres at present, because it does not answer: 1 or 0",
    },
    Metric {
        name: "redis_failures_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Questions of readers that Redis did not answer as it should, or in time",
    },
    Metric {
        name: "log_failures_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Questions of readers that the log did not answer as it should, or in time",
    },
    Metric {
        name: "views_lag_seconds",
        kind: MetricKind::Gauge,
        labels: &["partition"],
        help: "Seconds since the first event of a partition was seen that the views in Redis lack; 0 if they \
            lack none",
    },
    Metric {
        name: "server_answers",
        kind: MetricKind::Gauge,
        labels: &["server"],
        help: "Whether Redis and Postgres answered when last asked: 1 or 0",
    },
];

/// The `source` of a copy in memory that nothing could renew.
pub(crate) const STALE: &str = "stale";

pub(crate) fn count_read(view: &'static str, source: &'static str) {
    metrics::counter!("reads_total", "view" => view, "source" => source).increment(1);
}

/// What is counted of pages that are sent before any route is looked for. Looking the numbers up each time would
/// take longer than all the rest.
#[derive(Clone)]
pub(crate) struct Hits {
    route: &'static str,
    from_memory: Counter,
    requests: [(Counter, Histogram); 4],
}

impl std::fmt::Debug for Hits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hits").finish_non_exhaustive()
    }
}

impl Hits {
    /// As the layers count what passes through them, by this route.
    pub(crate) fn of(route: &'static str) -> Self {
        let request = |method: &'static str, status: &'static str| {
            let labels = [("route", route), ("method", method), ("status", status)];
            let requests = metrics::counter!("http_requests_total", &labels);
            (requests, metrics::histogram!("http_request_duration_seconds", &labels))
        };
        Self {
            route,
            from_memory: metrics::counter!("reads_total", "view" => "page", "source" => "memory"),
            requests: [
                request("GET", "200"),
                request("GET", "304"),
                request("HEAD", "200"),
                request("HEAD", "304"),
            ],
        }
    }

    /// Counts a page from memory.
    pub(crate) fn count_hit(&self, is_head: bool, is_known: bool) {
        self.from_memory.increment(1);
        // Too short to be told from nothing.
        self.count(is_head, is_known, Duration::ZERO);
    }

    /// Counts an answer to a `GET`.
    pub(crate) fn count_answer(&self, status: StatusCode, took: Duration) {
        match status {
            StatusCode::OK => self.count(false, false, took),
            StatusCode::NOT_MODIFIED => self.count(false, true, took),
            other => count_answer(self.route, "GET", other, took),
        }
    }

    fn count(&self, is_head: bool, is_known: bool, took: Duration) {
        let (requests, duration) = &self.requests[usize::from(is_head) * 2 + usize::from(is_known)];
        requests.increment(1);
        duration.record(took);
    }
}
