//! What an operator can do for a page that is set aside.

use domain::{Partition, Position, PostId};

use crate::support::{Blog, Projector};
use crate::unreadable::{in_use, with_an_unreadable_event};

#[tokio::test]
async fn the_list_and_the_details_tell_what_is_set_aside() {
    let (blog, projector, id, bad) = with_a_page_set_aside().await;
    let listed = blog.quarantine(&["list"]).await.unwrap();
    let line = listed.lines().nth(1).unwrap();
    for word in [&bad.to_string(), &id.to_string(), "post.revised.v999", "quarantined", "no event"]
    {
        assert!(line.contains(word), "{word} is missing from\n{listed}");
    }
    for which in [id.to_string(), bad.to_string()] {
        let shown = blog.quarantine(&["show", &which]).await.unwrap();
        for word in [
            "\"event_version\": \"999\"",
            "\"payload\": {",
            &format!("The page is set aside from position {bad} on."),
            // As it was before.
            "\"title\": \"On reading\"",
        ] {
            assert!(shown.contains(word), "{word} is missing from\n{shown}");
        }
    }
    let nothing = blog.quarantine(&["show", "1"]).await.unwrap_err();
    assert!(nothing.contains("nothing of that is on record"), "{nothing}");
    projector.stop().await;
}

#[tokio::test]
async fn a_retry_releases_a_page_that_can_be_read_and_says_why_another_cannot() {
    let (blog, projector, id, bad) = with_a_page_set_aside().await;
    for words in [&["retry", &id.to_string()][..], &["retry", "--all"]] {
        let why = blog.quarantine(words).await.unwrap_err();
        assert!(why.contains("set aside"), "{why}");
        blog.views_agree_where(&[(id, bad)], &[]).await;
        assert_eq!(blog.on_record().await, [bad]);
    }
    let why = blog.quarantine(&["retry", &id.to_string()]).await.unwrap_err();
    assert!(why.contains(&format!("from position {bad} on: no event")), "{why}");

    blog.learns_to_read().await;
    blog.quarantine(&["retry", &id.to_string()]).await.unwrap();
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.on_record().await, []);
    goes_on(&blog, projector, id, &[]).await;
}

#[tokio::test]
async fn a_page_that_could_be_read_and_waits_for_a_retry_is_not_called_wrong() {
    let (blog, projector, id, bad) = with_a_page_set_aside().await;
    blog.learns_to_read().await;
    let said = blog.tool(&["verify", "--repair"]).succeeds().await;
    assert!(said.contains(" 0 differences") && said.contains("1 pages set aside"), "{said}");
    assert_eq!(blog.on_record().await, [bad]);
    let found = blog.views.row(id).await.unwrap();
    assert_eq!(found.quarantined, Some(bad));
    projector.stop().await;
}

#[tokio::test]
async fn a_retry_of_all_releases_all() {
    let (blog, projector, ..) = with_a_page_set_aside().await;
    blog.learns_to_read().await;
    blog.quarantine(&["retry", "--all"]).await.unwrap();
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.on_record().await, []);
    projector.stop().await;
}

#[tokio::test]
async fn a_page_that_is_mended_up_to_another_bad_event_is_set_aside_there() {
    let (blog, projector, id, bad) = with_a_page_set_aside().await;
    let head = blog.log.head().await.unwrap();
    let second = blog.record_unreadable(id).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    blog.quarantine(&["discard", &bad.to_string()]).await.unwrap_err();
    blog.views_agree_where(&[(id, second)], &[bad]).await;
    let mut on_record = blog.on_record().await;
    on_record.sort_unstable();
    assert_eq!(on_record, [bad, second]);
    projector.stop().await;
}

#[tokio::test]
async fn a_discarded_event_is_left_out_for_good() {
    let (mut blog, projector, id, bad) = with_a_page_set_aside().await;
    let why = blog.quarantine(&["discard", "1"]).await.unwrap_err();
    assert!(why.contains("no page is set aside for an event at position 1"), "{why}");
    blog.quarantine(&["discard", &bad.to_string()]).await.unwrap();
    blog.views_agree_where(&[], &[bad]).await;
    assert_eq!(blog.on_record().await, [bad]);
    goes_on(&blog, projector, id, &[bad]).await;

    // By whichever way it is met again.
    let projector = blog.project().await;
    for partition in Blog::partitions() {
        blog.tamper(partition, &[("epoch", "v1-an-older-program".to_owned())]).await;
    }
    blog.views_agree_where(&[], &[bad]).await;
    projector.stop().await;
    blog.has_another_topic().await;
    blog.begins_at(Position(bad.0 - 1)).await;
    let projector = blog.project().await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_where(&[], &[bad]).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_discarded_last_event_moves_its_row_all_the_same() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = blog.record_unreadable(id).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    blog.quarantine(&["discard", &bad.to_string()]).await.unwrap();
    blog.views_agree_where(&[], &[bad]).await;
    let row = blog.views.row(id).await.unwrap().row.unwrap();
    assert_eq!(row.position, bad);
    goes_on(&blog, projector, id, &[bad]).await;
}

/// The released page takes what comes, and nothing was begun anew.
async fn goes_on(blog: &Blog, projector: Projector, id: PostId, discarded: &[Position]) {
    let epochs = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    blog.revise(id, "On neither").await;
    blog.publish_in(Partition(2)).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[], discarded).await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

async fn with_a_page_set_aside() -> (Blog, Projector, PostId, Position) {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = with_an_unreadable_event(&blog, id).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    (blog, projector, id, bad)
}
