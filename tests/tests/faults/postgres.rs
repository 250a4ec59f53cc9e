//! Without Postgres nothing can be recorded; what is warm can be read.

use journeys::{Attempt, Blog, Ground, Load, Onlooker, Published};
use testkit::{eventually, own_postgres};

#[tokio::test]
async fn while_postgres_is_gone_warm_pages_are_served_and_nothing_is_lost() {
    let mut postgres = own_postgres().await;
    postgres.ensure_database("blog").await.expect("no database");
    let ground = Ground { database_url: postgres.url("blog"), ..Ground::shared().await };
    let blog = Blog::start_on(ground, &[]).await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora"]);
    let (anne, reader) = (authors[0].clone(), blog.reader());
    let warm = Published::default();
    for number in 1..=5 {
        let post = anne.publish(&format!("Warm number {number}")).await;
        eventually("the views have it", async || reader.finds(&post, "").await).await;
        assert!(!reader.page(post.slug()).await.is_from("log"));
        warm.push(post);
    }
    let onlooker = Onlooker::of(&reader, &warm);
    let mut load = Load::begin(&authors, 200);
    load.reached(60).await;

    postgres.kill().expect("Postgres could not be killed");
    let during = tokio::spawn(async move { anne.try_to_publish("In the dark").await });
    eventually("it is felt", async || !blog.command.is_ready().await).await;
    onlooker.reads_on(200).await;
    assert!(reader.list("", 20).await.is_some(), "a list needs no Postgres");
    postgres.restart().await.expect("Postgres did not come back");

    let during = during.await.expect("a command was refused");
    assert!(!matches!(during, Attempt::NotSent), "{during:?}");
    let outcome = load.end().await.and_attempt("In the dark", during);
    let outcome = warm.posts().into_iter().fold(outcome, |outcome, post| outcome.and(post));
    let after = authors[1].publish("Light again").await;
    blog.has_kept_its_word(&outcome.and(after)).await;
    onlooker.saw_nothing_wrong().await;
}
