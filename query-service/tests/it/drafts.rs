//! Drafts are their author's alone.

use crate::support::Blog;

#[tokio::test]
async fn a_draft_is_shown_to_its_author_by_its_id() {
    let blog = Blog::start().await;
    let id = blog.draft("writing").await;
    for source in ["log", "redis"] {
        let anne = blog.reader().as_author("anne");
        let answer = anne.get(&format!("/posts/{id}")).await;
        assert_eq!((answer.status, answer.source()), (200, source));
        assert_eq!(answer.json()["status"], "draft");
        assert_eq!(answer.header("cache-control"), "private, no-store");
        blog.project().await;
    }
}

#[tokio::test]
async fn a_draft_is_hidden_from_everybody_else_and_by_its_slug() {
    let blog = Blog::start().await;
    let id = blog.draft("writing").await;
    let by_id = format!("/posts/{id}");
    let (anne, bob) = (blog.reader().as_author("anne"), blog.reader().as_author("bob"));
    for _source in ["log", "redis"] {
        assert_eq!(blog.reader().get(&by_id).await.code(), "not_found");
        assert_eq!(bob.get(&by_id).await.code(), "not_found");
        assert_eq!(anne.get("/posts/writing").await.code(), "not_found");
        assert_eq!(anne.get("/post/writing").await.code(), "not_found");
        blog.project().await;
    }
}

#[tokio::test]
async fn an_unpublished_post_is_a_draft_again() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    blog.unpublish(id).await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/writing").await.code(), "not_found");
    let anne = blog.reader().as_author("anne");
    assert_eq!(anne.get(&format!("/posts/{id}")).await.status, 200);
}

#[tokio::test]
async fn who_shows_a_token_is_answered_privately() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    let bob = blog.reader().as_author("bob");
    for address in ["/posts/writing", "/post/writing", "/posts"] {
        let answer = bob.get(address).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-control"), "private, no-store", "{address}");
    }
}

#[tokio::test]
async fn a_bad_token_is_refused_even_where_none_is_needed() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    for address in ["/posts/writing", "/post/writing", "/posts"] {
        let answer = blog.reader().with_token("forged").get(address).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"), "{address}");
        let challenge = "Bearer error=\"invalid_token\"";
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
}

#[tokio::test]
async fn another_scheme_counts_as_no_credentials_and_the_answer_is_private() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    let draft = blog.draft("thinking").await;
    blog.project().await;
    let get = async |address: &str| {
        blog.reader().get_with(address, "authorization", "Basic YW5uZTo=").await
    };
    for address in ["/posts/writing", "/post/writing", "/posts", "/feed.atom"] {
        let answer = get(address).await;
        assert_eq!(answer.status, 200, "{address}");
        assert_eq!(answer.header("cache-control"), "private, no-store", "{address}");
    }
    assert_eq!(get(&format!("/posts/{draft}")).await.status, 404);
    assert_eq!(get("/me/posts").await.header("www-authenticate"), "Bearer");
}
