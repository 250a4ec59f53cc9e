//! What every process does before and after its own work: settings that are secret, logs, health and
//! metrics on a port of their own, serving HTTP, stopping in good order.
//!
//! Knows nothing of posts.

pub mod health;
pub mod metrics;
pub mod ops;
pub mod progress;
pub mod secret;
pub mod server;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;

pub use health::{Check, Readiness};
pub use metrics::{Metric, MetricKind, describe};
pub use ops::Ops;
pub use secret::Secret;
pub use server::{ConnectionArgs, Limits, Server};
pub use shutdown::shutdown_signal;
pub use tasks::{DrainArgs, Tasks};
pub use telemetry::TelemetryArgs;
