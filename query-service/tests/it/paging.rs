//! Going through a list page by page.

use crate::lists::slugs_of;
use crate::support::{Answer, Blog};

#[tokio::test]
async fn paging_neither_skips_nor_repeats_while_posts_come_and_go() {
    let blog = Blog::start().await;
    let mut ids = vec![];
    for number in 0..20 {
        ids.push(blog.publish(&format!("post-{number}")).await);
    }
    blog.project().await;

    let mut seen = vec![];
    let mut address = "/posts?limit=3".to_owned();
    for round in 0.. {
        let answer = blog.reader().get(&address).await;
        seen.extend(slugs_of(&answer));
        let Some(next) = next(&answer) else { break };
        address = next;
        // One comes, the last one shown goes, and so does one that is still to be shown.
        blog.publish(&format!("new-{round}")).await;
        match round {
            0 => blog.delete(ids[17]).await,
            1 => blog.unpublish(ids[3]).await,
            _ => drop(blog.revise_title(ids[5], "Anew").await),
        }
        blog.project().await;
    }

    let expected: Vec<String> = (0..20)
        .rev()
        .filter(|number| *number != 3)
        .map(|number| format!("post-{number}"))
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_next_page_is_of_the_same_list() {
    let blog = Blog::start().await;
    for number in 0..5 {
        blog.publish_as("auth0|anne", &format!("post-{number}"), &["rust"]).await;
    }
    blog.publish_as("bob", "other", &[]).await;
    blog.project().await;
    for filter in ["tag=rust", "author=auth0%7Canne"] {
        let first = blog.reader().get(&format!("/posts?limit=2&{filter}")).await;
        let second = blog.reader().get(&next(&first).unwrap()).await;
        let third = blog.reader().get(&next(&second).unwrap()).await;
        assert_eq!(slugs_of(&second), ["post-2", "post-1"]);
        assert_eq!(slugs_of(&third), ["post-0"]);
        assert_eq!(next(&third), None);
    }
}

#[tokio::test]
async fn a_page_that_ends_with_the_list_has_no_next_one() {
    let blog = Blog::start().await;
    blog.publish("first").await;
    blog.publish("second").await;
    blog.project().await;
    assert_eq!(next(&blog.reader().get("/posts?limit=2").await), None);
    assert!(next(&blog.reader().get("/posts?limit=1").await).is_some());
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let blog = Blog::start().await;
    for slug in ["a", "b"] {
        blog.publish_as("anne", slug, &["rust"]).await;
    }
    blog.project().await;
    let answer = blog.reader().get("/posts?limit=1&tag=rust").await;
    let cursor = answer.json()["next"].as_str().unwrap().to_owned();
    for query in [
        format!("cursor={cursor}"),
        format!("author=anne&cursor={cursor}"),
        format!("tag=rust&cursor={cursor}A"),
        format!("tag=rust&cursor={}", &cursor[1..]),
    ] {
        let answer = blog.reader().get(&format!("/posts?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{query}");
    }
}

/// The address of the next page, told twice: in the `Link` header and as a cursor in the body.
pub(crate) fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link");
    let address = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    match answer.json()["next"].as_str() {
        Some(cursor) => assert!(address.unwrap().ends_with(&format!("cursor={cursor}"))),
        None => assert_eq!(link, ""),
    }
    address.map(str::to_owned)
}
