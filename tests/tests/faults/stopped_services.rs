//! Services that are told to stop, or stand still for a while.

use journeys::{Blog, Ground, Load};
use testkit::{Signal, eventually};

#[tokio::test]
async fn told_to_stop_the_command_service_answers_what_it_has_accepted() {
    let mut blog = Blog::start().await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora", "emil", "fay"]);
    let mut load = Load::begin(&authors, 200);
    load.reached(60).await;
    // So that there is work in hand for certain.
    let lock = blog.hold_up_commits().await.waited_for_by(1).await;
    let recorded = blog.log().await.titles().len();

    blog.command.process().signal(Signal::Terminate).expect("it cannot be told");
    eventually("it is stopping", async || !blog.command.is_ready().await).await;
    lock.release().await;
    let status = blog.command.ended().await;
    let published = load.published();
    // Nobody else is there to answer.
    eventually("what was in hand is answered", async || published.posts().len() > recorded).await;
    blog.command.start_again().await;
    let outcome = load.end().await;

    assert!(status.success(), "{status:?}");
    let log = blog.log().await;
    for title in &outcome.unknown {
        assert!(
            !log.titles().contains(title.as_str()),
            "`{title}` is recorded, its author unaware"
        );
    }
    blog.has_kept_its_word(&outcome).await;
}

#[tokio::test]
async fn a_service_that_is_no_longer_ready_still_takes_requests_for_a_while() {
    let delay = ("INKSTREAM_STOP_DELAY_SECONDS", "30");
    let mut blog = Blog::start_on(Ground::shared().await, &[delay]).await;
    let anne = blog.sign_up("anne");

    blog.command.process().signal(Signal::Terminate).expect("no signal was sent");
    eventually("it is stopping", async || !blog.command.is_ready().await).await;
    anne.publish("Still taken").await;

    assert!(blog.command.ended().await.success());
}

#[tokio::test]
async fn without_a_projector_pages_are_readable_and_with_one_the_lists_catch_up() {
    let mut blog = Blog::start().await;
    let authors = blog.sign_up_all(["anne", "bob"]);
    let (anne, reader) = (&authors[0], blog.reader());
    let before = anne.publish("Before").await;
    eventually("it is in the list", async || reader.finds(&before, "").await).await;
    assert!(blog.projector.terminate().await.success());

    let outcome = Load::begin(&authors, 20).end().await;

    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    let list = reader.list("", 100).await.expect("the lists are still there");
    assert_eq!(list.ids(), [before.id.as_str()], "somebody else keeps the lists");
    for post in &outcome.acknowledged {
        assert!(reader.can_read(post).await, "{post:?} cannot be read");
    }

    blog.projector.start_again().await;
    blog.has_kept_its_word(&outcome.and(before)).await;
}
