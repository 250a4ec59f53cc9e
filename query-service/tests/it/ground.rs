//! A single Redis, which all tests share unless they bring their own.

pub(crate) async fn url() -> String {
    testkit::shared().redis_url
}
