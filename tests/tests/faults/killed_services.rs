//! `kill -9` loses and doubles nothing.

use journeys::{Author, Blog, Load, Onlooker};

fn authors(blog: &Blog) -> Vec<Author> {
    blog.sign_up_all(["anne", "bob", "carl", "dora", "emil", "fay"])
}

#[tokio::test]
async fn killing_the_command_service_under_load_loses_and_doubles_nothing() {
    let mut blog = Blog::start().await;
    let mut load = Load::begin(&authors(&blog), 200);

    load.reached(60).await;
    let lock = blog.hold_up_commits().await.waited_for_by(1).await;
    blog.command.kill();
    // What Postgres has in hand is recorded now, and nobody is there to say so.
    lock.release().await;
    blog.command.start_again().await;

    let outcome = load.end().await;
    assert!(!outcome.unknown.is_empty(), "the kill has struck nobody: {outcome:?}");
    blog.has_kept_its_word(&outcome).await;
}

#[tokio::test]
async fn killing_the_projector_under_load_loses_and_doubles_nothing() {
    let mut blog = Blog::start().await;
    let mut load = Load::begin(&authors(&blog), 200);

    load.reached(60).await;
    blog.projector.kill();
    load.reached(120).await;
    blog.projector.start_again().await;

    let outcome = load.end().await;
    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    blog.has_kept_its_word(&outcome).await;
}

#[tokio::test]
async fn killing_the_query_service_under_load_loses_and_doubles_nothing() {
    let mut blog = Blog::start().await;
    let mut load = Load::begin(&authors(&blog), 200);
    let onlooker = Onlooker::of(&blog.reader(), &load.published());

    load.reached(60).await;
    onlooker.reads_on(10).await;
    blog.query.kill();
    let seen = onlooker.stop().await;
    blog.query.start_again().await;
    let another = Onlooker::of(&blog.reader(), &load.published());

    let outcome = load.end().await;
    another.reads_on(10).await;
    another.saw_nothing_wrong().await;
    // Some reads fell into the gap; what was answered was right.
    let answered = seen.wrong.iter().filter(|wrong| wrong.contains("Answer")).count();
    assert_eq!(answered, 0, "{seen:?}");
    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    blog.has_kept_its_word(&outcome).await;
}

#[tokio::test]
async fn of_two_command_services_on_one_store_the_other_carries_on() {
    let mut blog = Blog::start().await;
    let other = blog.another_command_service().await;
    let half = |(number, author): (usize, Author)| {
        let (first, second) = (blog.command.url(), other.url());
        if number % 2 == 0 {
            author.preferring(&second).preferring(&first)
        } else {
            author.preferring(&first).preferring(&second)
        }
    };
    let authors: Vec<Author> = authors(&blog).into_iter().enumerate().map(half).collect();
    let mut load = Load::begin(&authors, 200);

    load.reached(60).await;
    let lock = blog.hold_up_commits().await.waited_for_by(2).await;
    // It was there first, so it is the one that carries the log to Kafka.
    blog.command.kill();
    lock.release().await;

    let outcome = load.end().await;
    assert!(!outcome.unknown.is_empty(), "the kill has struck nobody: {outcome:?}");
    assert_eq!(outcome.not_sent, 0, "one of them was always there: {outcome:?}");
    blog.has_kept_its_word(&outcome).await;
}
