//! Several projectors at once: they come, go and stand still while events stream in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::{Position, PostId};
use read_model::Views;
use testkit::{Place, Signal};
use tokio::task::JoinHandle;

use crate::support::Blog;

#[tokio::test]
async fn projectors_join_and_leave_in_the_middle_of_a_stream() {
    let blog = Blog::new().await;
    let first = blog.project().await;
    blog.has_begun().await;
    let epochs = blog.epochs().await;
    let ids = blog.publish_in_all(3).await;
    let watcher = Watcher::of(&blog.views, &ids);
    let mut head = Position::ZERO;
    let (mut second, mut third) = (None, None);
    for round in 0..40 {
        match round {
            5 => second = Some(blog.project().await),
            12 => third = Some(blog.project().await),
            20 => second.take().unwrap().vanish().await,
            26 => third.take().unwrap().stop().await,
            30 => second = Some(blog.project().await),
            _ => {}
        }
        for id in &ids {
            blog.revise(*id, &format!("Round {round}")).await;
        }
        blog.relay_after(head).await;
        head = blog.log.head().await.unwrap();
    }
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    watcher.saw_nothing_go_back().await;
    first.stop().await;
    second.unwrap().stop().await;
}

#[tokio::test]
async fn a_projector_that_slept_past_its_session_does_no_harm_when_it_wakes() {
    let blog = Blog::new().await;
    let place = Place::passing("projector").unwrap();
    let mut sleeper = blog.project_in_a_process(&place);
    blog.has_begun().await;
    let epochs = blog.epochs().await;
    let ids = blog.publish_in_all(3).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    let watcher = Watcher::of(&blog.views, &ids);

    let mut head = blog.log.head().await.unwrap();
    for id in ids.iter().cycle().take(200) {
        blog.revise(*id, "Before").await;
    }
    // In the middle of something, if it is quick.
    blog.relay_after(head).await;
    sleeper.signal(Signal::Stop).unwrap();
    let other = blog.project().await;
    // It gets the partitions when the session of the other has run out, after ten seconds.
    head = blog.log.head().await.unwrap();
    for id in &ids {
        blog.revise(*id, "Meanwhile").await;
    }
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;

    sleeper.signal(Signal::Continue).unwrap();
    for round in 0..20 {
        head = blog.log.head().await.unwrap();
        for id in &ids {
            blog.revise(*id, &format!("After {round}")).await;
        }
        blog.relay_after(head).await;
    }
    blog.views_agree_with_the_log().await;
    sleeper.require_running().unwrap();
    assert_eq!(blog.epochs().await, epochs);
    watcher.saw_nothing_go_back().await;
    assert!(sleeper.terminate().await.unwrap().success());
    other.stop().await;
}

/// Looks at rows all the time, and remembers when one was older than before.
struct Watcher {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<(usize, Vec<String>)>,
}

impl Watcher {
    fn of(views: &Views, ids: &[PostId]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (views, ids, told) = (views.clone(), ids.to_vec(), stop.clone());
        let watching = tokio::spawn(async move {
            let (mut last, mut looks, mut wrong) = (HashMap::new(), 0, vec![]);
            while !told.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(2)).await;
                let Ok(rows) = views.rows(&ids).await else { continue };
                for (id, found) in ids.iter().zip(rows) {
                    let mark = found.watermark.map(|mark| mark.point.position);
                    let row = found.row.map(|row| row.position);
                    let now = (mark, row);
                    let before = last.insert(*id, now).unwrap_or_default();
                    if now.0 < before.0 || now.1 < before.1 {
                        wrong.push(format!("{id}: {before:?}, and then {now:?}"));
                    }
                }
                looks += 1;
            }
            (looks, wrong)
        });
        Self { stop, watching }
    }

    async fn saw_nothing_go_back(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (looks, wrong) = self.watching.await.unwrap();
        assert!(looks > 20, "it looked only {looks} times");
        assert_eq!(wrong, [""; 0]);
    }
}
