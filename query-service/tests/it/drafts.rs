//! Drafts are their author's alone.

use crate::support::{Answer, Blog, WITHOUT_MEMORY};

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

#[tokio::test]
async fn to_others_a_draft_a_free_slug_and_a_deleted_draft_are_the_same() {
    for options in [&[][..], &WITHOUT_MEMORY] {
        let blog = Blog::start_with(options).await;
        let draft = blog.draft("secret").await;
        let deleted = blog.draft("discarded").await;
        blog.delete(deleted).await;
        // So that partitions have positions of their own.
        for slug in ["a", "b", "c", "d"] {
            blog.publish(slug).await;
        }
        for is_projected in [false, true] {
            if is_projected {
                blog.project().await;
            }
            let bob = blog.reader().as_author("bob");
            let token = blog.token(1, draft, blog.head().await);
            let cookie = format!("consistency={token}");
            let same = async |of_free: &str, of_others: [&str; 2], base: &str| {
                let ask = async |address: &str| {
                    let path = format!("{base}/{address}");
                    let answers = [
                        blog.reader().get(&path).await,
                        blog.reader().head(&path).await,
                        blog.reader().get_unless(&path, "*").await,
                        blog.reader().browse(&path).await,
                        bob.get(&path).await,
                        blog.reader().get_with(&path, "cookie", &cookie).await,
                        blog.reader().get_with(&path, "consistency-token", &token).await,
                    ];
                    answers.map(|answer| without_source(&answer, address))
                };
                for _ in 0..2 {
                    let free = ask(of_free).await;
                    for other in of_others {
                        assert_eq!(ask(other).await, free, "{base}/{other}");
                    }
                }
            };
            same("nothing", ["secret", "discarded"], "/posts").await;
            same("nothing", ["secret", "discarded"], "/post").await;
            let (unknown, draft) = (crate::support::new_id().to_string(), draft.to_string());
            same(&unknown, [&draft, &deleted.to_string()], "/posts").await;
        }
    }
}

#[tokio::test]
async fn only_what_was_published_once_is_gone() {
    let blog = Blog::start_without_memory().await;
    let draft = blog.draft("never").await;
    let published = blog.publish("published").await;
    let unpublished = blog.publish("unpublished").await;
    blog.unpublish(unpublished).await;
    for id in [draft, published, unpublished] {
        blog.delete(id).await;
    }
    for is_projected in [false, true] {
        if is_projected {
            blog.project().await;
        }
        for (slug, id, status) in [
            ("never", draft, 404),
            ("published", published, 410),
            ("unpublished", unpublished, 410),
        ] {
            assert_eq!(blog.reader().get(&format!("/posts/{slug}")).await.status, status);
            assert_eq!(blog.reader().get(&format!("/posts/{id}")).await.status, status);
        }
    }
}

/// Status, headers and text, but for the time and the id of the request, and for where a repeated answer came from:
/// that depends on when it was asked for.
fn without_source(answer: &Answer, address: &str) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
        .map(|(name, value)| (name, value.replace("source=memory", "source=log")))
        .collect();
    headers.sort();
    let text = answer.text.replace(address, "").replace(answer.header("x-request-id"), "");
    (answer.status, headers, text)
}
