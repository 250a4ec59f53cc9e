//! What an author finds among their own posts.

use serde_json::json;

use crate::lists::slugs_of;
use crate::paging::next;
use crate::support::{Blog, Reader};

const NONE: [&str; 0] = [];

#[tokio::test]
async fn an_author_finds_all_their_posts_drafts_included_latest_first() {
    let blog = Blog::start().await;
    for slug in ["first", "second", "third"] {
        blog.draft(slug).await;
        blog.publish(&format!("{slug}-published")).await;
    }
    blog.publish_as("bob", "other", &[]).await;
    blog.project().await;

    let anne = blog.reader().as_author("anne");
    let answer = anne.get("/me/posts").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        slugs_of(&answer),
        ["third-published", "third", "second-published", "second", "first-published", "first"]
    );
    assert_eq!(answer.header("cache-control"), "private, no-store");
    assert_eq!(answer.header("vary"), "Accept, Authorization, Consistency-Token, Cookie");
    assert_eq!((answer.source(), answer.is_stale()), ("redis", false));
    assert_eq!(own(&anne, "?status=draft").await, ["third", "second", "first"]);
    assert_eq!(
        own(&anne, "?status=published").await,
        ["third-published", "second-published", "first-published"]
    );

    let card = &answer.json()["items"][1];
    let mut page = anne.get(&format!("/posts/{}", card["id"].as_str().unwrap())).await.json();
    page.as_object_mut().unwrap().remove("content");
    assert_eq!(card, &page, "a card is not its page without the content");
}

#[tokio::test]
async fn nobody_finds_the_drafts_of_another_author() {
    let blog = Blog::start().await;
    blog.draft("secret").await;
    blog.project().await;
    let bob = blog.reader().as_author("bob");
    for query in ["", "?status=draft", "?status=published"] {
        assert_eq!(own(&bob, query).await, NONE);
    }
    for address in ["/posts", "/posts?author=anne"] {
        assert_eq!(slugs_of(&bob.get(address).await), NONE);
    }
}

#[tokio::test]
async fn who_does_not_say_who_they_are_has_no_posts_of_their_own() {
    let blog = Blog::start().await;
    blog.project().await;
    let forged = "Bearer error=\"invalid_token\"";
    for (reader, challenge) in
        [(blog.reader(), "Bearer"), (blog.reader().with_token("forged"), forged)]
    {
        // Before anything else is told.
        for address in ["/me/posts", "/me/posts?status=x"] {
            let answer = reader.get(address).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"));
            assert_eq!(answer.header("www-authenticate"), challenge);
        }
    }
}

#[tokio::test]
async fn a_status_that_there_is_not_is_refused() {
    let blog = Blog::start().await;
    blog.project().await;
    let anne = blog.reader().as_author("anne");
    for status in ["", "deleted", "Draft", "draft,published"] {
        let answer = anne.get(&format!("/me/posts?status={status}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "validation_failed"));
        assert_eq!(answer.json()["errors"][0]["field"], json!("status"));
    }
    for query in ["author=anne", "tag=a", "status=draft&status=draft", "cursor=x"] {
        let answer = anne.get(&format!("/me/posts?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{query}");
    }
}

#[tokio::test]
async fn publishing_and_taking_back_moves_a_post_between_the_lists_and_keeps_its_place() {
    let blog = Blog::start().await;
    let id = blog.draft("first").await;
    blog.draft("second").await;
    let anne = blog.reader().as_author("anne");
    blog.project().await;
    assert_eq!(own(&anne, "?status=draft").await, ["second", "first"]);
    assert_eq!(own(&anne, "?status=published").await, NONE);

    blog.record(id, json!({"published": {"slug": "first"}})).await;
    blog.project().await;
    assert_eq!(own(&anne, "?status=draft").await, ["second"]);
    assert_eq!(own(&anne, "?status=published").await, ["first"]);
    assert_eq!(own(&anne, "").await, ["second", "first"]);

    blog.unpublish(id).await;
    blog.project().await;
    assert_eq!(own(&anne, "?status=draft").await, ["second", "first"]);
    assert_eq!(own(&anne, "?status=published").await, NONE);
    assert_eq!(own(&anne, "").await, ["second", "first"]);
}

#[tokio::test]
async fn a_post_that_moved_after_its_list_was_read_is_left_out() {
    let blog = Blog::start().await;
    let draft = blog.draft("first").await;
    let published = blog.publish("second").await;
    blog.project().await;
    blog.record(draft, json!({"published": {"slug": "first"}})).await;
    blog.unpublish(published).await;
    // Their rows are read from the log, which has come further than the lists.
    blog.evict(draft).await;
    blog.evict(published).await;
    let anne = blog.reader().as_author("anne");
    for (status, moved) in [("draft", "first"), ("published", "second")] {
        let shown = own(&anne, &format!("?status={status}")).await;
        assert!(!shown.contains(&moved.to_owned()), "{shown:?} are {status}");
    }
    assert_eq!(own(&anne, "").await, ["second", "first"]);
}

#[tokio::test]
async fn a_deleted_post_is_in_no_list() {
    let blog = Blog::start().await;
    let (draft, published) = (blog.draft("draft").await, blog.publish("published").await);
    blog.publish("kept").await;
    blog.project().await;
    blog.delete(draft).await;
    blog.delete(published).await;
    blog.project().await;
    let anne = blog.reader().as_author("anne");
    assert_eq!(own(&anne, "").await, ["kept"]);
    assert_eq!(own(&anne, "?status=draft").await, NONE);
    assert_eq!(own(&anne, "?status=published").await, ["kept"]);
}

#[tokio::test]
async fn paging_neither_skips_nor_repeats_while_posts_come_go_and_are_published() {
    let blog = Blog::start().await;
    let mut ids = vec![];
    for number in 0..20 {
        ids.push(blog.draft(&format!("post-{number}")).await);
    }
    blog.project().await;

    let anne = blog.reader().as_author("anne");
    let mut seen = vec![];
    let mut address = "/me/posts?limit=3".to_owned();
    for round in 0.. {
        let answer = anne.get(&address).await;
        seen.extend(slugs_of(&answer));
        let Some(next) = next(&answer) else { break };
        address = next;
        // One comes, one that is still to be shown goes, and one that was shown is published, as is one
        // that was not.
        blog.draft(&format!("new-{round}")).await;
        match round {
            0 => blog.delete(ids[3]).await,
            1 => drop(blog.record(ids[18], json!({"published": {"slug": "post-18"}})).await),
            _ => drop(blog.record(ids[2], json!({"published": {"slug": "post-2"}})).await),
        }
        blog.project().await;
    }

    let kept = (0..20).rev().filter(|number| *number != 3);
    assert_eq!(seen, kept.map(|number| format!("post-{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_next_page_is_of_the_same_status() {
    let blog = Blog::start().await;
    for number in 0..3 {
        blog.draft(&format!("draft-{number}")).await;
        blog.publish(&format!("post-{number}")).await;
    }
    blog.project().await;
    let anne = blog.reader().as_author("anne");
    for (status, last) in [("draft", "draft-0"), ("published", "post-0")] {
        let first = anne.get(&format!("/me/posts?limit=2&status={status}")).await;
        let second = anne.get(&next(&first).unwrap()).await;
        assert_eq!(slugs_of(&second), [last]);
        assert_eq!(next(&second), None);
    }
}

#[tokio::test]
async fn a_cursor_of_another_list_or_author_is_refused() {
    let blog = Blog::start().await;
    for slug in ["a", "b"] {
        blog.draft(slug).await;
        blog.publish(&format!("{slug}-published")).await;
    }
    blog.project().await;
    let (anne, bob) = (blog.reader().as_author("anne"), blog.reader().as_author("bob"));
    let cursor = async |address: &str| {
        let answer = anne.get(address).await;
        answer.json()["next"].as_str().unwrap().to_owned()
    };
    let drafts = cursor("/me/posts?status=draft&limit=1").await;
    let public = cursor("/posts?author=anne&limit=1").await;
    for (reader, address) in [
        (&anne, format!("/me/posts?cursor={drafts}")),
        (&anne, format!("/me/posts?status=published&cursor={drafts}")),
        (&anne, format!("/me/posts?status=published&cursor={public}")),
        (&anne, format!("/posts?author=anne&cursor={drafts}")),
        (&bob, format!("/me/posts?status=draft&cursor={drafts}")),
    ] {
        let answer = reader.get(&address).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{address}");
    }
}

#[tokio::test]
async fn ones_own_posts_are_said_to_be_stale_while_a_partition_is_not_filled() {
    let blog = Blog::start().await;
    blog.draft("writing").await;
    blog.begin_epochs().await;
    let anne = blog.reader().as_author("anne");
    let answer = anne.get("/me/posts").await;
    assert_eq!((answer.status, answer.is_stale()), (200, true));
    blog.end_filling(true).await;
    let answer = anne.get("/me/posts").await;
    assert_eq!((slugs_of(&answer), answer.is_stale()), (vec!["writing".to_owned()], false));
}

/// The slugs of one's own posts.
async fn own(reader: &Reader, query: &str) -> Vec<String> {
    slugs_of(&reader.get(&format!("/me/posts{query}")).await)
}
