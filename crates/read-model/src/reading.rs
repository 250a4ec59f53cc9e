//! What a reader asks of the views: rows and texts of posts, parts of lists, and how far all that has come.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::DateTime;
use domain::{Partition, Point, Position, PostId, Slug};
use redis::Value;

use crate::guard::Watermark;
use crate::high_water::is_behind;
use crate::lists::{ListName, Place};
use crate::row::{DELETED, DELETED_DRAFT, DRAFT, PUBLISHED, StoredPage, StoredRow};
use crate::views::{KEPT_SECONDS, read, values};
use crate::{Views, ViewsError};

const WATERMARK: [&str; 5] = ["incarnation", "epoch", "position", "event", "unfilled"];
const ROW: [&str; 7] = ["epoch", "position", "state", "slug", "created", "card", "content"];
const CARD: [&str; 6] = ["epoch", "position", "state", "slug", "created", "card"];
const HTML: [&str; 4] = ["epoch", "state", "card", "html"];

/// A row as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundRow {
    /// How far the partition had come, read before the row.
    pub watermark: Option<Watermark>,
    /// That is below a watermark which this process had read before.
    pub is_behind: bool,
    pub row: Option<StoredRow>,
    /// The event for which the page is set aside. Nothing from there on is in its row.
    pub quarantined: Option<Position>,
}

/// The text of a post as HTML, as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundHtml {
    /// How far the partition had come, read before the text.
    pub watermark: Option<Watermark>,
    /// The card of the page that the text belongs to, and the text. `None` for a draft and for a post that was
    /// deleted, too.
    pub text: Option<(Bytes, Bytes)>,
}

/// One partition's part of a list.
#[derive(Debug)]
pub struct ListPart {
    pub watermark: Option<Watermark>,
    /// It is below a watermark which this process had read before.
    pub is_behind: bool,
    /// Latest first.
    pub places: Vec<Place>,
}

impl Views {
    /// How far each partition has come.
    pub async fn watermarks(&self) -> Result<Vec<Option<Watermark>>, ViewsError> {
        self.watermarks_that_answer().await.into_iter().collect()
    }

    /// The same where a part of a cluster may be away: each partition's, or why it cannot be had.
    pub async fn watermarks_that_answer(&self) -> Vec<Result<Option<Watermark>, ViewsError>> {
        let partitions: Vec<_> = self.partitions.all().collect();
        self.watermarks_of(&partitions).await
    }

    /// Reads those of some partitions only.
    pub(crate) async fn watermarks_of(
        &self,
        partitions: &[Partition],
    ) -> Vec<Result<Option<Watermark>, ViewsError>> {
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        for partition in partitions {
            let key = keys.watermark(*partition);
            exchange.question(&key).hmget(&key, &WATERMARK);
        }
        let mut answers = exchange.send().await;
        let mark = |partition: &Partition| {
            let mark = answers.next().and_then(|[mark]| watermark(mark))?;
            self.observe(keys.generation(), *partition, mark.as_ref());
            Ok(mark)
        };
        partitions.iter().map(mark).collect()
    }

    fn observe(&self, generation: u32, partition: Partition, mark: Option<&Watermark>) {
        if let Some(mark) = mark {
            self.high_water.raise(generation, partition, mark);
        }
    }

    /// The row of a post, and the watermark of its partition, which was read before it. A row of an epoch
    /// that is over is as good as none.
    pub async fn row(&self, id: PostId) -> Result<FoundRow, ViewsError> {
        let mut rows = self.rows(&[id]).await?;
        rows.pop().ok_or(ViewsError::Malformed("no row for a question"))
    }

    /// The same for several posts, in one exchange.
    pub async fn rows(&self, ids: &[PostId]) -> Result<Vec<FoundRow>, ViewsError> {
        self.rows_that_answer(ids).await.into_iter().collect()
    }

    /// The same where some may not be had: each row, or why not. They stay for a week from now, or from an
    /// hour ago.
    pub async fn rows_that_answer(&self, ids: &[PostId]) -> Vec<Result<FoundRow, ViewsError>> {
        self.find(ids, &ROW, |id| self.lengthened.is_due(id)).await
    }

    /// The same without the texts of the posts, which are empty in what comes back: a list shows none.
    pub async fn cards(&self, ids: &[PostId]) -> Result<Vec<FoundRow>, ViewsError> {
        self.find(ids, &CARD, |_| false).await.into_iter().collect()
    }

    async fn find(
        &self,
        ids: &[PostId],
        fields: &[&str],
        is_lengthened: impl Fn(PostId) -> bool,
    ) -> Vec<Result<FoundRow, ViewsError>> {
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        let ids: Vec<_> = ids.iter().map(|id| (*id, self.partition_of(*id))).collect();
        let partitions: BTreeSet<_> = ids.iter().map(|(_, partition)| *partition).collect();
        // Before all rows, and once for those that share it.
        for partition in &partitions {
            let key = keys.watermark(*partition);
            exchange.question(&key).hmget(&key, &WATERMARK);
        }
        for (id, partition) in &ids {
            let key = keys.post(*partition, *id);
            let pipe = exchange.question(&key).hmget(&key, fields);
            pipe.hget(keys.quarantined(*partition), id.to_string());
        }
        for (id, partition) in ids.iter().filter(|(id, _)| is_lengthened(*id)) {
            let key = keys.post(*partition, *id);
            // Not those of deleted posts, which stay for good.
            exchange.question(&key).expire(&key, KEPT_SECONDS).arg("XX");
        }
        let heights = self.high_water.of(keys.generation(), &partitions);
        let mut answers = exchange.send().await;
        let mut mark = |partition| {
            let mark = answers.next().and_then(|[mark]| watermark(mark));
            if let Ok(mark) = &mark {
                self.observe(keys.generation(), partition, mark.as_ref());
            }
            (partition, mark)
        };
        let marks: BTreeMap<_, _> = partitions.into_iter().map(&mut mark).collect();
        let found = |(_, partition): &(PostId, Partition)| {
            let [row, flag] = answers.next()?;
            let watermark = match marks.get(partition) {
                Some(Ok(mark)) => mark.clone(),
                Some(Err(_)) | None => return Err(ViewsError::Malformed("a watermark")),
            };
            let row = match &watermark {
                Some(mark) => stored_row(row, &mark.epoch)?,
                None => None,
            };
            let flag: Option<u64> = read(flag)?;
            let is_behind = is_behind(&heights, *partition, watermark.as_ref());
            Ok(FoundRow { watermark, is_behind, row, quarantined: flag.map(Position) })
        };
        ids.iter().map(found).collect()
    }

    /// The texts of these posts as HTML. They are kept beside the pages, for nobody who reads JSON needs them.
    pub async fn texts(&self, ids: &[PostId]) -> Result<Vec<FoundHtml>, ViewsError> {
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        for id in ids {
            let partition = self.partition_of(*id);
            let mark = keys.watermark(partition);
            let pipe = exchange.question(&mark);
            pipe.hmget(mark, &WATERMARK);
            pipe.hmget(keys.post(partition, *id), &HTML);
        }
        let mut answers = exchange.send().await;
        let mut texts = Vec::with_capacity(ids.len());
        for _ in ids {
            let [mark, row] = answers.next()?;
            let watermark = watermark(mark)?;
            let epoch = watermark.as_ref().map(|mark| mark.epoch.as_bytes());
            let mut fields = values::<Vec<u8>>(row)?.into_iter().flatten();
            let text = match (fields.next(), fields.next(), fields.next(), fields.next()) {
                (Some(of_epoch), Some(state), Some(card), Some(html))
                    if Some(&of_epoch[..]) == epoch && state == PUBLISHED.as_bytes() =>
                {
                    Some((card.into(), html.into()))
                }
                _ => None,
            };
            texts.push(FoundHtml { watermark, text });
        }
        Ok(texts)
    }

    /// Every post of a partition that is set aside, with the event for which it is.
    pub async fn quarantined(
        &self,
        partition: Partition,
    ) -> Result<Vec<(PostId, Position)>, ViewsError> {
        let keys = self.keys();
        let key = keys.quarantined(partition);
        let mut exchange = self.connection.exchange();
        exchange.question(&key).hgetall(&key);
        let [answer] = exchange.send().await.next()?;
        let flags: Vec<(String, u64)> = read(answer)?;
        let flag = |(id, position): (String, u64)| {
            let id = id.parse().map_err(|_| ViewsError::Malformed("a flag"))?;
            Ok((id, Position(position)))
        };
        flags.into_iter().map(flag).collect()
    }

    /// Each partition's part of a list: at most `limit` places behind `after`. A part that was lost while it
    /// was read has no watermark.
    pub async fn list(
        &self,
        name: &ListName,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<ListPart>, ViewsError> {
        let keys = self.keys();
        let below = after.map_or_else(|| "+".to_owned(), |place| format!("({place}"));
        let mut exchange = self.connection.exchange();
        for partition in self.partitions.all() {
            let mark = keys.watermark(partition);
            let key = format!("{}{name}", keys.list_prefix(partition));
            let pipe = exchange.question(&mark);
            pipe.hmget(&mark, &WATERMARK);
            pipe.zrevrangebylex_limit(
                key,
                &below,
                "-",
                0,
                isize::try_from(limit).unwrap_or(isize::MAX),
            );
            pipe.hget(&mark, "epoch");
        }
        let partitions: Vec<_> = self.partitions.all().collect();
        let heights = self.high_water.of(keys.generation(), &partitions);
        let mut answers = exchange.send().await;
        let mut parts = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let [mark, places, epoch] = answers.next()?;
            let epoch: Option<String> = read(epoch)?;
            let mark = watermark(mark)?.filter(|mark| Some(&mark.epoch) == epoch.as_ref());
            let places: Vec<String> = read(places)?;
            let places: Result<_, _> = places.iter().map(|place| place.parse()).collect();
            let places = places.map_err(ViewsError::Malformed)?;
            self.observe(keys.generation(), partition, mark.as_ref());
            let is_behind = is_behind(&heights, partition, mark.as_ref());
            parts.push(ListPart { watermark: mark, is_behind, places });
        }
        Ok(parts)
    }
}

pub(crate) fn watermark(answer: Value) -> Result<Option<Watermark>, ViewsError> {
    let mut fields = values::<String>(answer)?.into_iter();
    let mut next = || fields.next().flatten();
    let (Some(incarnation), Some(epoch), Some(position), Some(event), unfilled) =
        (next(), next(), next(), next(), next())
    else {
        return Ok(None);
    };
    let malformed = || ViewsError::Malformed("a watermark");
    let position_of = |text: &str| text.parse().map(Position).map_err(|_| malformed());
    Ok(Some(Watermark {
        incarnation: incarnation.parse().map_err(|_| malformed())?,
        epoch,
        point: Point {
            position: position_of(&position)?,
            event_id: event.parse().map_err(|_| malformed())?,
        },
        unfilled_below: unfilled.as_deref().map(position_of).transpose()?,
    }))
}

/// A row that cannot be read is as good as none: it is in the log, and what is offered from there takes its place.
fn stored_row(answer: Value, epoch: &str) -> Result<Option<StoredRow>, ViewsError> {
    Ok(read_row(values(answer)?, epoch))
}

fn read_row(fields: Vec<Option<Vec<u8>>>, epoch: &str) -> Option<StoredRow> {
    let mut fields = fields.into_iter();
    let mut next = || fields.next().flatten();
    let (of_epoch, position, state) = (next()?, next()?, next()?);
    let (slug, created_at, card, content) = (next()?, next()?, next()?, next());
    if of_epoch != epoch.as_bytes() {
        return None;
    }
    let text = |bytes| String::from_utf8(bytes).ok();
    let number = |bytes| text(bytes)?.parse::<i64>().ok();
    let position = Position::from_i64(number(position)?);
    let state = std::str::from_utf8(&state).ok()?;
    if state == DELETED || state == DELETED_DRAFT {
        return Some(StoredRow { position, page: None, was_published: state == DELETED });
    }
    let slug = text(slug)?;
    let page = StoredPage {
        published: state == PUBLISHED,
        slug: (!slug.is_empty()).then(|| Slug::recorded(slug)),
        created_at: DateTime::from_timestamp_micros(number(created_at)?)?,
        card: card.into(),
        content: content.unwrap_or_default().into(),
    };
    Some(StoredRow { position, page: Some(page), was_published: state != DRAFT })
}
