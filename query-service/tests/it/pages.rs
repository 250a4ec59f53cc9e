//! What a reader gets at the address of a post.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Blog, new_id};

#[tokio::test]
async fn a_page_is_served_from_redis() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;

    let answer = blog.reader().get("/posts/writing").await;

    assert_eq!((answer.status, answer.source()), (200, "redis"));
    assert_eq!(answer.header("freshness"), "position=2, source=redis, age=0");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "public, max-age=0, must-revalidate");
    assert_eq!(answer.header("vary"), "Accept, Authorization, Consistency-Token, Cookie");
    let page = answer.json();
    let published_at = page["published_at"].clone();
    assert_eq!(
        page,
        json!({
            "id": id, "slug": "writing", "title": "On writing", "content": "Begin.",
            "summary": null, "tags": [], "author": {"id": "anne", "name": "anne"},
            "status": "published", "published_at": published_at, "updated_at": published_at,
            "version": 2,
        })
    );
    assert_eq!(blog.reader().get(&format!("/posts/{id}")).await.text, answer.text);
}

#[tokio::test]
async fn a_page_is_the_same_bytes_with_the_same_tag_whether_stored_or_folded_anew() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    let folded = blog.reader().get("/posts/writing").await;
    blog.project().await;
    let stored = blog.reader().get(&format!("/posts/{id}")).await;
    assert_eq!((folded.source(), stored.source()), ("log", "redis"));
    assert_eq!(folded.text, stored.text);
    assert_eq!(folded.header("etag"), stored.header("etag"));
}

#[tokio::test]
async fn a_reader_who_has_the_page_is_not_sent_it_again() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let etag = blog.reader().get("/posts/writing").await.header("etag").to_owned();

    for known in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
        let answer = blog.reader().get_unless("/posts/writing", &known).await;
        assert_eq!((answer.status, answer.text.as_str()), (304, ""), "{known}");
        assert_eq!(answer.header("etag"), etag);
        assert_eq!(answer.header("cache-control"), "public, max-age=0, must-revalidate");
        assert_eq!(answer.source(), "redis");
    }

    blog.revise_title(id, "On reading").await;
    blog.project().await;
    let answer = blog.reader().get_unless("/posts/writing", &etag).await;
    assert_eq!((answer.status, &answer.json()["title"]), (200, &json!("On reading")));
}

#[tokio::test]
async fn head_is_answered_as_get_without_the_body() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    let (get, head) =
        (blog.reader().get("/posts/writing").await, blog.reader().head("/posts/writing").await);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for name in ["etag", "content-length", "content-type", "cache-control"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[tokio::test]
async fn what_was_never_published_is_not_found() {
    let blog = Blog::start().await;
    blog.project().await;
    let id = new_id();
    for address in [
        "/posts/nothing",
        "/posts/Not%20a%20slug",
        "/posts/%ff",
        "/post/nothing",
        "/nowhere",
        &format!("/posts/{id}"),
        &format!("/post/{id}"),
    ] {
        let answer = blog.reader().get(address).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{address}");
        assert_eq!(answer.header("cache-control"), "no-store", "{address}");
    }
    for address in ["/posts/unheard-of", "/post/unheard-of-too", &format!("/posts/{id}")] {
        let answer = blog.reader().get(address).await;
        assert!(["log", "memory"].contains(&answer.source()), "{address}: {answer:?}");
        let again = blog.reader().as_author("anne").get(address).await;
        assert_eq!((again.status, again.source()), (404, "log"), "{address}");
    }
}

#[tokio::test]
async fn an_answer_given_before_the_routes_has_the_headers_of_theirs() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.move_to(id, "late").await;
    let deleted = blog.publish("deleted").await;
    blog.delete(deleted).await;
    blog.project().await;
    for (address, status) in [
        ("/posts/late", 200),
        ("/posts/writing", 301),
        ("/posts/nothing", 404),
        ("/posts/deleted", 410),
    ] {
        // The second comes from where all that follow do. The routes answer every HEAD.
        blog.reader().get(address).await;
        let (get, head) = (blog.reader().get(address).await, blog.reader().head(address).await);
        assert_eq!((get.status, head.status), (status, status), "{address}");
        // Each request has an id and a time of its own.
        let comparable = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            headers.remove("date");
            headers.remove("x-request-id").expect("no id");
            headers
        };
        assert_eq!(comparable(&get), comparable(&head), "{address}");
    }
}

#[tokio::test]
async fn a_problem_is_told_as_a_problem_document() {
    let blog = Blog::start().await;
    let answer = blog.reader().get_with("/posts/nothing", "x-request-id", "mine").await;
    assert_eq!(
        answer.json(),
        json!({
            "type": "about:blank", "title": "Not Found", "status": 404,
            "detail": "no such post is published", "code": "not_found", "request_id": "mine",
        })
    );
    let answer = blog.reader().ask(Method::DELETE, "/posts/nothing").await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
}

#[tokio::test]
async fn the_article_this_began_with_keeps_its_shape() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.revise_title(id, "On \"writing\"").await;
    for _source in ["log", "redis"] {
        let answer = blog.reader().get("/post/writing").await;
        assert_eq!(
            answer.json(),
            json!({"uid": id, "title": "On \"writing\"", "content": "Begin.", "slug": "writing"})
        );
        blog.project().await;
    }
}

#[tokio::test]
async fn bytes_that_were_mended_have_another_entity_tag() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let right = blog.reader().get("/posts/writing").await;
    assert!(right.header("etag").starts_with("\"2-"), "{right:?}");
    blog.replace_content(id, "\"Wrong.\"").await;
    let wrong = blog.reader().get("/posts/writing").await;
    assert_eq!(wrong.json()["content"], "Wrong.");
    assert_ne!(wrong.header("etag"), right.header("etag"));

    blog.replace_content(id, "\"Begin.\"").await;
    let mended = blog.reader().get_unless("/posts/writing", wrong.header("etag")).await;
    assert_eq!((mended.status, &mended.text), (200, &right.text));
    assert_eq!(mended.header("etag"), right.header("etag"));
}
