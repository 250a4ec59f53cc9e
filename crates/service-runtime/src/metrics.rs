//! Counters and histograms for Prometheus. Anybody counts with the macros of `metrics`; this is where the
//! numbers are kept and turned into text.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds of the histograms whose names end in `_seconds`: from a hit in memory to a timeout.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Upper bounds of the histograms whose names end in `_size`, which count things: powers of two.
const SIZES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// One of the numbers that a process tells about itself. All of a service stand in one table, and there is
/// no other place where they are explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    /// These as a table in Markdown, by name.
    pub fn table(list: impl IntoIterator<Item = Self>) -> String {
        let mut list = Vec::from_iter(list);
        list.sort_unstable_by_key(|metric| metric.name);
        let mut table =
            "| Metric | Kind | Labels | Meaning |\n| --- | --- | --- | --- |\n".to_owned();
        for Self { name, kind, labels, help } in list {
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>();
            table += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
        }
        table
    }
}

/// Has `/metrics` explain these. To be called before any of them is counted, since whoever keeps a handle
/// from before that counts for nobody.
pub fn describe(list: &[Metric]) -> anyhow::Result<()> {
    install()?;
    for Metric { name, kind, help, .. } in list {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(*name, *help),
            MetricKind::Gauge => metrics::describe_gauge!(*name, *help),
            MetricKind::Histogram => metrics::describe_histogram!(*name, *help),
        }
    }
    Ok(())
}

/// The numbers of this process. The second call gets those of the first, since tests start several
/// services in one process.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = INSTALLED.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZES)
        })
        .context("while setting the bounds of histograms")?
        .build_recorder();
    let handle = INSTALLED.get_or_init(|| {
        let handle = recorder.handle();
        // Fails only where another recorder was installed by hand, which then gets the numbers.
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("Metrics are recorded elsewhere");
        }
        handle
    });
    Ok(handle.clone())
}

/// Tidies the histograms now and then: what was observed waits in a list until somebody looks, and
/// nobody may.
pub async fn keep_tidy(handle: PrometheusHandle, stop: CancellationToken) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        handle.run_upkeep();
    }
}
