//! A fold that panics quarantines its page and never ends the process; a text that is hard to render delays no other page.

use domain::post::PostEvent;
use domain::{Position, PostId, Recorded};
use read_model::{PostPage, fold_page};
use serde_json::json;
use testkit::eventually;

use crate::support::Blog;
use crate::unreadable::in_use;

const PANICS: &str = "On panics";

fn panics_at_a_title(
    page: Option<PostPage>,
    event: &Recorded<PostEvent>,
    id: PostId,
) -> Option<PostPage> {
    if let PostEvent::Revised { changes, .. } = &event.payload
        && changes.title.as_ref().is_some_and(|title| title.as_str() == PANICS)
    {
        panic!("a fault of the fold");
    }
    fold_page(page, event, id)
}

#[tokio::test]
async fn a_fold_that_panics_quarantines_its_page_with_the_reason() {
    let mut blog = Blog::new().await;
    let projector = blog.project_folding_by(panics_at_a_title).await;
    let id = in_use(&blog).await;
    let epochs = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    let bad = blog.revise(id, PANICS).await;
    blog.revise(id, "On both").await;
    let evicted = blog.publish_in(blog.views.partition_of(id)).await;
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    let entry = blog.log.on_record(10).await.unwrap().remove(0);
    assert_eq!(entry.position, bad);
    assert!(entry.reason.contains("a fault of the fold"), "{}", entry.reason);

    // So does one in a page that has to be folded from its whole history.
    let head = blog.log.head().await.unwrap();
    blog.evict(evicted).await;
    let second = blog.revise(evicted, PANICS).await;
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad), (evicted, second)], &[]).await;
    assert_eq!(blog.on_record().await, [bad, second]);
    projector.stop().await;

    // A program without the fault releases both when it starts.
    blog.has_another_topic().await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    blog.nothing_is_on_record().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn a_discarded_event_whose_fold_panics_is_left_out() {
    let blog = Blog::new().await;
    let projector = blog.project_folding_by(panics_at_a_title).await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = blog.revise(id, PANICS).await;
    // As an operator has done it while another process had quarantined the page.
    sqlx::query(
        "INSERT INTO quarantine (position, partition, aggregate_type, aggregate_id, sequence, event_type,
                                 event_version, reason, state, discarded_at)
         SELECT position, partition, aggregate_type, aggregate_id, sequence, event_type, event_version,
                'panicked', 'discarded', now()
         FROM events WHERE position = $1",
    )
    .bind(bad.to_i64())
    .execute(&blog.pool)
    .await
    .unwrap();
    blog.revise(id, "On both").await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[], &[bad]).await;
    projector.stop().await;
}

#[tokio::test]
async fn texts_that_are_hard_to_render_keep_no_other_page_from_its_readers() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    for part in ["<", "[", "*", "|", "a|\n-|\n", "[^1]", "> ", "- [ ] a\n"] {
        for length in [20_000, 262_144] {
            let id = blog.id_in(Blog::partitions().next().unwrap());
            let content = json!({"title": "On text", "content": part.repeat(length / part.len())});
            let author = json!({"id": "anne", "name": "Anne"});
            blog.record(id, json!({"drafted": {"author": author, "content": content}})).await;
            let slug = format!("on-text-{}", id.random_digits());
            blog.record(id, json!({"published": {"slug": slug}})).await;
        }
    }
    let others = blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    let other = others[1];
    eventually("a page of another partition is there", async || {
        blog.views.row(other).await.unwrap().row.is_some()
    })
    .await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.on_record().await, Vec::<Position>::new());
    projector.stop().await;
}
