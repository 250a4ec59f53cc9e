//! What the service tells about itself in numbers.

use service_runtime::{Metric, server};
use testkit::expect_recorded_below;

#[test]
fn the_numbers_are_those_in_the_docs() {
    let all = [command_service::METRICS, http_api::layers::METRICS, server::METRICS].concat();
    expect_recorded_below("command-service", "docs/METRICS.md", &Metric::table(all));
}
