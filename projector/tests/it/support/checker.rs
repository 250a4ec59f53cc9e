//! Holds everything in Redis against the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use domain::post::{PostEvent, Status};
use domain::{AuthorId, Partition, Point, Position, PostId, RawEvent, Recorded, StoredEvent as _};
use read_model::{ListName, Place, Row, StoredRow, Watermark, fold_histories};
use redis::AsyncCommands as _;
use testkit::connection_to;

use super::Blog;

type Lists = BTreeMap<String, BTreeSet<String>>;

impl Blog {
    /// Waits until every watermark, row and list is what the whole log makes of it.
    pub(crate) async fn views_agree_with_the_log(&self) {
        self.views_agree(&[]).await;
    }

    /// The same, where some partitions have stopped before an event.
    pub(crate) async fn views_agree_but_for(&self, partition: Partition, stopped: Position) {
        self.views_agree(&[(partition, stopped)]).await;
    }

    /// The same, where some pages are set aside from an event on, and some events are left out.
    pub(crate) async fn views_agree_where(
        &self,
        set_aside: &[(PostId, Position)],
        discarded: &[Position],
    ) {
        let but = But { set_aside, discarded, ..But::default() };
        self.views_agree_but(but).await;
    }

    async fn views_agree(&self, stopped: &[(Partition, Position)]) {
        self.views_agree_but(But { stopped, ..But::default() }).await;
    }

    async fn views_agree_but(&self, stopped: But<'_>) {
        let mut difference = None;
        let agreed = tokio::time::timeout(Duration::from_secs(120), async {
            while let Err(error) = self.compare(&stopped).await {
                difference = Some(format!("{error:#}"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(agreed.await.is_ok(), "the views do not agree with the log: {difference:?}");
    }

    async fn compare(&self, but: &But<'_>) -> anyhow::Result<()> {
        let watermarks = self.views.watermarks().await?;
        let incarnation = self.log.incarnation().await?;
        for (partition, watermark) in Self::partitions().zip(watermarks) {
            let before = but.stopped.iter().find(|(stopped, _)| *stopped == partition);
            let watermark = watermark.context("no watermark")?;
            let compared = async {
                ensure!(watermark.incarnation == incarnation, "it is of another incarnation");
                ensure!(watermark.unfilled_below.is_none(), "not filled: {watermark:?}");
                self.compare_partition(partition, &watermark, before.map(|(_, at)| *at), but).await
            };
            compared.await.with_context(|| format!("in partition {partition}"))?;
        }
        Ok(())
    }

    async fn compare_partition(
        &self,
        partition: Partition,
        watermark: &Watermark,
        before: Option<Position>,
        but: &But<'_>,
    ) -> anyhow::Result<()> {
        let mut events: Vec<Recorded<RawEvent>> = vec![];
        loop {
            let read = events.last().map_or(Position::ZERO, |event| event.position);
            let more = self.log.read_partition_after(partition, read, 100_000).await?;
            if more.is_empty() {
                break;
            }
            events.extend(more);
        }
        events.retain(|event| before.is_none_or(|before| event.position < before));
        let head = events.last().map_or(Point::START, Recorded::point);
        ensure!(watermark.point == head, "at {:?}, not at {head:?}", watermark.point);

        let in_here = |(id, _): &(PostId, Position)| self.views.partition_of(*id) == partition;
        let expected: BTreeMap<_, _> = but.set_aside.iter().copied().filter(in_here).collect();
        let flags: BTreeMap<_, _> = self.views.quarantined(partition).await?.into_iter().collect();
        ensure!(flags == expected, "set aside are {flags:?}, not {expected:?}");
        events.retain(|event| {
            let from = event.stream_id.parse().ok().and_then(|id| expected.get(&id));
            from.is_none_or(|from| event.position < *from)
        });
        let rows = fold(events, but.discarded)?;
        let mut redis = connection_to(&self.redis_url, &self.key(partition, "")).await?;
        let prefix = self.key(partition, "post:");
        let mut stored = BTreeSet::new();
        for key in redis.keys::<_, Vec<String>>(format!("{prefix}*")).await? {
            let epoch: String = redis.hget(&key, "epoch").await?;
            if epoch == watermark.epoch {
                stored.insert(key[prefix.len()..].parse::<PostId>()?);
            }
        }
        let expected: BTreeSet<PostId> = rows.keys().copied().collect();
        ensure!(stored == expected, "{} rows, not {}", stored.len(), expected.len());
        let ids = Vec::from_iter(expected);
        for (id, found) in ids.iter().zip(self.views.rows(&ids).await?) {
            let stored = found.row;
            let expected = StoredRow::try_from(&rows[id])?;
            ensure!(stored.as_ref() == Some(&expected), "{stored:?} is not {expected:?}");
        }

        let prefix = self.key(partition, "list:");
        let mut lists = Lists::new();
        for key in redis.keys::<_, Vec<String>>(format!("{prefix}*")).await? {
            lists.insert(key[prefix.len()..].to_owned(), redis.zrange(&key, 0, -1).await?);
        }
        let expected = lists_of(&rows);
        if lists != expected {
            bail!("the lists are {lists:?}, not {expected:?}");
        }
        Ok(())
    }
}

/// Where the views are not as the whole log would have them.
#[derive(Default)]
struct But<'a> {
    stopped: &'a [(Partition, Position)],
    set_aside: &'a [(PostId, Position)],
    discarded: &'a [Position],
}

fn fold(
    events: Vec<Recorded<RawEvent>>,
    discarded: &[Position],
) -> anyhow::Result<HashMap<PostId, Row>> {
    let read = |event: Recorded<RawEvent>| {
        if discarded.contains(&event.position) {
            return event.try_map(|_| Ok(None));
        }
        PostEvent::decode(event)?.try_map(|event| Ok(Some(event)))
    };
    let events: Result<Vec<_>, domain::Undecodable> = events.into_iter().map(read).collect();
    Ok(fold_histories(events?))
}

fn lists_of(rows: &HashMap<PostId, Row>) -> Lists {
    let mut lists = Lists::new();
    let mut put = |list: ListName, place: Place| {
        lists.entry(list.to_string()).or_default().insert(place.to_string());
    };
    for page in rows.values().filter_map(|row| row.page.as_ref()) {
        let card = &page.card;
        let author: AuthorId = card.author.id.parse().unwrap();
        let created = Place::new(page.created_at, card.id);
        put(ListName::Own(author.clone()), created);
        if card.status != Status::Published {
            put(ListName::OwnDrafts(author), created);
            continue;
        }
        put(ListName::OwnPublished(author.clone()), created);
        let published = Place::new(card.published_at.unwrap(), card.id);
        put(ListName::Published, published);
        put(ListName::Author(author), published);
        for tag in &card.tags {
            put(ListName::Tag(tag.slug().unwrap()), published);
        }
    }
    lists
}
