//! What the service says of itself, to everybody.

use reqwest::Method;
use serde_json::Value;
use testkit::expect_recorded;

use crate::support::{start, told};

#[tokio::test]
async fn the_document_is_the_one_in_the_docs() {
    let service = start().await;
    let (status, document) = told(service.request(Method::GET, "/openapi.json")).await;
    assert_eq!((status, &document["openapi"]), (200, &Value::from("3.1.0")));
    expect_recorded("docs/openapi/command-service.json", &document);
}

#[tokio::test]
async fn the_page_with_the_document_needs_no_token() {
    let service = start().await;
    let page = service.request(Method::GET, "/docs/").send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()["content-type"], "text/html");
    let page = page.text().await.unwrap();
    assert!(!page.contains("http"), "it leads elsewhere:\n{page}");
}
