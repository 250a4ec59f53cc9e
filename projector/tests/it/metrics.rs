//! What the projector tells about itself in numbers.

use service_runtime::Metric;
use testkit::expect_recorded_below;

#[test]
fn the_numbers_are_those_in_the_docs() {
    let table = Metric::table(projector::METRICS.iter().copied());
    expect_recorded_below("projector", "docs/METRICS.md", &table);
}
