//! What the service says of itself, to everybody.

use serde_json::Value;
use testkit::expect_recorded;

use crate::support::Blog;

#[tokio::test]
async fn the_document_is_the_one_in_the_docs() {
    let blog = Blog::start().await;
    let answer = blog.reader().get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    let document = answer.json();
    assert_eq!(document["openapi"], Value::from("3.1.0"));
    expect_recorded("docs/openapi/query-service.json", &document);
}

#[tokio::test]
async fn the_page_with_the_document_needs_no_token() {
    let blog = Blog::start().await;
    let page = blog.reader().get("/docs/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html"));
}
