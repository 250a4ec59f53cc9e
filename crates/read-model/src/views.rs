//! The views in Redis: reading them, and writing them through the guard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use domain::{Claim, Partition, Partitions, Point, Position, PostId, Slug};
use redis::{Expiry, RedisError, RedisResult, Script, Value};
use uuid::Uuid;

use crate::announcements::Announcements;
use crate::connection::{Connection, Exchange};
use crate::guard::Watermark;
use crate::keys::KeySpace;
use crate::lengthened::Lengthened;
use crate::lists::{ListName, Place, memberships};
use crate::post_page::PostPage;
use crate::row::{Row, StoredPage, StoredRow};

const WATERMARK: [&str; 5] = ["incarnation", "epoch", "position", "event", "unfilled"];
const ROW: [&str; 7] = ["epoch", "position", "state", "slug", "created", "card", "content"];
/// How long a row, or what a slug names, stays that nobody reads. Both are in the log.
const KEPT_SECONDS: i64 = 7 * 24 * 3600;

const CARD: [&str; 6] = ["epoch", "position", "state", "slug", "created", "card"];
const HTML: [&str; 4] = ["epoch", "state", "card", "html"];

/// The views of one store. Clones share one connection to Redis, or one to each node of a cluster; they come
/// back by themselves.
#[derive(Debug, Clone)]
pub struct Views {
    pub(crate) connection: Connection,
    pub(crate) keys: KeySpace,
    /// The generation of these views; clones share it.
    generation: Arc<AtomicU32>,
    pub(crate) partitions: Partitions,
    guard: Script,
    new_epoch: Script,
    lengthened: Arc<Lengthened>,
}

/// Rows that follow from a run of events, without a hole, behind the watermark of their partition.
#[derive(Debug)]
pub struct Advance {
    pub partition: Partition,
    pub incarnation: u32,
    pub epoch: String,
    /// Where the watermark must stand.
    pub from: Point,
    /// The last event of the run.
    pub to: Point,
    pub rows: Vec<(PostId, Row)>,
    /// The slugs that were claimed.
    pub slugs: Vec<(Slug, Claim)>,
    /// Pages with an event in this run that cannot be folded; if there is a row, it stands before that.
    pub flags: Vec<(PostId, Flag)>,
}

/// Whether a page is set aside because an event of it cannot be folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// From the event at this position on. Its row takes no event and no fill any more, except one that was
    /// folded up to just before it.
    Quarantined(Position),
    /// As it was found. A run that passes over the events of a page, since that is set aside, names it so, and
    /// is refused if the page has been released meanwhile.
    Still,
    /// No more.
    Released,
}

/// A row as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundRow {
    /// How far the partition had come, read before the row.
    pub watermark: Option<Watermark>,
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

/// Rows of one partition that were folded from the log.
#[derive(Debug)]
pub struct Fill {
    pub partition: Partition,
    pub incarnation: u32,
    pub epoch: String,
    /// No event of theirs at or below this position is missing.
    pub as_of: Position,
    pub rows: Vec<(PostId, Row)>,
    /// Where these rows are the next part of filling the whole partition: below which position it is still
    /// to be filled; zero when that was all.
    pub unfilled_below: Option<Position>,
    /// Pages that are set aside, with their rows standing before the event that cannot be folded, or released.
    pub flags: Vec<(PostId, Flag)>,
}

/// What must be found for a fill that is one of several, or it is refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// The partition is yet to be filled below this position.
    Unfilled(Position),
    /// It is this batch of a part of a rebuild, and the one before it is there.
    Batch { part: usize, name: Uuid, number: u32 },
}

/// A new beginning for a partition whose views were lost, or cannot be trusted.
#[derive(Debug)]
pub struct NewEpoch {
    pub partition: Partition,
    pub incarnation: u32,
    /// Made up by the caller, never used before.
    pub epoch: String,
    /// The last event of the partition.
    pub head: Point,
    /// What was there before.
    pub found: Option<Watermark>,
}

/// What the guard answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarded {
    Written,
    /// Nothing was written; the watermark is this one, or there is none.
    Refused(Option<Watermark>),
}

/// One partition's part of a list.
#[derive(Debug)]
pub struct ListPart {
    pub watermark: Option<Watermark>,
    /// Latest first.
    pub places: Vec<Place>,
}

#[derive(Debug, thiserror::Error)]
pub enum ViewsError {
    #[error("Redis did not answer as asked")]
    Redis(#[from] RedisError),
    #[error("a value in Redis cannot be read: {0}")]
    Malformed(&'static str),
    #[error("a row cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl ViewsError {
    /// Whether nobody is there at all.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_connection_refusal())
    }
}

impl Views {
    /// Prepares to talk to Redis at `url`; the connection is made when it is first needed. A cluster is named
    /// by some of its nodes: `redis+cluster://host:port,host:port`.
    pub fn new(
        url: &str,
        keys: KeySpace,
        partitions: Partitions,
        time_limit: Duration,
    ) -> Result<Self, ViewsError> {
        Ok(Self {
            connection: Connection::new(url, time_limit)?,
            generation: Arc::new(AtomicU32::new(keys.generation())),
            keys,
            partitions,
            guard: Script::new(include_str!("guard.lua")),
            new_epoch: Script::new(include_str!("new_epoch.lua")),
            lengthened: Arc::new(Lengthened::new()),
        })
    }

    /// A server that tells what is announced. Of a cluster any node does, and this is another one each time.
    pub fn listener(&self) -> RedisResult<redis::Client> {
        self.connection.listener()
    }

    /// Whether each partition may be on a server of its own, which answers or is away by itself.
    pub fn are_in_a_cluster(&self) -> bool {
        matches!(self.connection, Connection::Cluster(_))
    }

    /// What is announced of changes to them.
    pub fn announcements(&self) -> Announcements {
        Announcements::new(self.clone(), self.keys.announcements())
    }

    /// These and all their clones are another generation from now on. Each answer that is being formed stays
    /// with the one it began with.
    pub fn switch_to(&self, generation: u32) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// The same store's views in one generation, which no switch changes.
    #[must_use]
    pub fn of_generation(&self, generation: u32) -> Self {
        Self { generation: Arc::new(AtomicU32::new(generation)), ..self.clone() }
    }

    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The keys of the present generation. Whoever needs several takes them from one call.
    pub(crate) fn keys(&self) -> KeySpace {
        self.keys.of_generation(self.generation())
    }

    /// How far each partition has come.
    pub async fn watermarks(&self) -> Result<Vec<Option<Watermark>>, ViewsError> {
        self.watermarks_that_answer().await.into_iter().collect()
    }

    /// The same where a part of a cluster may be away: each partition's, or why it cannot be had.
    pub async fn watermarks_that_answer(&self) -> Vec<Result<Option<Watermark>, ViewsError>> {
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        for partition in self.partitions.all() {
            let key = keys.watermark(partition);
            exchange.question(&key).hmget(&key, &WATERMARK);
        }
        let mut answers = exchange.send().await;
        let partitions = self.partitions.all();
        partitions.map(|_| answers.next().and_then(|[mark]| watermark(mark))).collect()
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
        let mut answers = exchange.send().await;
        let mut mark = |partition| (partition, answers.next().and_then(|[mark]| watermark(mark)));
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
            Ok(FoundRow { watermark, row, quarantined: flag.map(Position) })
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
                    if Some(&of_epoch[..]) == epoch && state == b"published" =>
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
        let mut answers = exchange.send().await;
        let mut parts = Vec::with_capacity(self.partitions.count().into());
        for _ in self.partitions.all() {
            let [mark, places, epoch] = answers.next()?;
            let epoch: Option<String> = read(epoch)?;
            let mark = watermark(mark)?.filter(|mark| Some(&mark.epoch) == epoch.as_ref());
            let places: Vec<String> = read(places)?;
            let places: Result<_, _> = places.iter().map(|place| place.parse()).collect();
            let places = places.map_err(ViewsError::Malformed)?;
            parts.push(ListPart { watermark: mark, places });
        }
        Ok(parts)
    }

    /// Which post a slug names, or named, if that is remembered.
    pub async fn claim_of(
        &self,
        incarnation: u32,
        slug: &Slug,
    ) -> Result<Option<Claim>, ViewsError> {
        let mut exchange = self.connection.exchange();
        let key = self.keys.slug(incarnation, slug);
        let longer = Expiry::EX(KEPT_SECONDS.unsigned_abs());
        exchange.question(&key).get_ex(&key, longer);
        let [answer] = exchange.send().await.next()?;
        let text: Option<String> = read(answer)?;
        text.map(|text| read_claim(&text).ok_or(ViewsError::Malformed("a slug"))).transpose()
    }

    /// Remembers which post a slug names, as the log says; it never names another.
    pub async fn remember_slug(
        &self,
        incarnation: u32,
        slug: &Slug,
        claim: Claim,
    ) -> Result<(), ViewsError> {
        let mut exchange = self.connection.exchange();
        self.add_claim(&mut exchange, incarnation, slug, claim);
        let [_done] = exchange.send().await.next()?;
        Ok(())
    }

    /// Moves watermarks forward, each together with the rows that follow. All go out in one exchange; each
    /// is answered, or fails, on its own.
    pub async fn advance(
        &self,
        advances: &[Advance],
    ) -> Result<Vec<Result<Guarded, ViewsError>>, ViewsError> {
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        for advance in advances {
            let mark = keys.watermark(advance.partition);
            let mut call = self.guard.prepare_invoke();
            call.key(&mark)
                .key(keys.listed(advance.partition))
                .key(keys.lists(advance.partition))
                .key(keys.quarantined(advance.partition))
                .key(keys.never(advance.partition))
                .arg("advance")
                .arg(advance.incarnation)
                .arg(&advance.epoch)
                .arg(advance.from.position.0)
                .arg(advance.from.event_id.to_string())
                .arg(advance.to.position.0)
                .arg(advance.to.event_id.to_string())
                .arg("")
                .arg(keys.list_prefix(advance.partition))
                .arg(keys.announcements())
                .arg(announcement(advance))
                .arg(flag_lines(&advance.flags));
            let html = htmls(&advance.rows);
            self.add_rows(
                &mut call,
                &keys,
                advance.partition,
                &advance.rows,
                html,
                &advance.flags,
            )?;
            exchange.call(&mark, &self.guard, &call);
        }
        for advance in advances {
            for (slug, claim) in &advance.slugs {
                self.add_claim(&mut exchange, advance.incarnation, slug, *claim);
            }
        }
        let mut answers = exchange.send().await;
        // A slug that could not be remembered is looked up in the log.
        Ok(advances.iter().map(|_| answers.next().and_then(|[answer]| guarded(answer))).collect())
    }

    /// Offers rows that were folded from the log. Their texts are rendered where nobody has to wait for it.
    pub async fn fill(&self, fill: &Fill) -> Result<Guarded, ViewsError> {
        self.fill_where(fill, None).await
    }

    /// Offers the next part of filling a whole partition, unless that is to be filled below another position
    /// than `below` by now.
    pub async fn fill_part(&self, fill: &Fill, below: Position) -> Result<Guarded, ViewsError> {
        self.fill_where(fill, Some(below)).await
    }

    async fn fill_where(
        &self,
        fill: &Fill,
        unfilled_below: Option<Position>,
    ) -> Result<Guarded, ViewsError> {
        let html = {
            let rows = fill.rows.clone();
            let rendered = tokio::task::spawn_blocking(move || htmls(&rows)).await;
            rendered.map_err(|_| ViewsError::Malformed("a text"))?
        };
        let mut exchange = self.connection.exchange();
        let expected = unfilled_below.map(Expected::Unfilled);
        self.add_fill(&mut exchange, &self.keys(), "fill", fill, html, expected)?;
        let [answer] = exchange.send().await.next()?;
        guarded(answer)
    }

    /// Offers rows of several partitions in one exchange. What is stored is replaced even where it says that it is
    /// as new or newer: it has been found to be wrong. Whoever keeps copies is told.
    pub async fn repair_all(&self, fills: &[Fill]) -> Result<Vec<Guarded>, ViewsError> {
        self.offer_all("repair", fills.iter().map(|fill| (fill, None))).await
    }

    pub(crate) async fn offer_all<'a>(
        &self,
        mode: &'static str,
        fills: impl ExactSizeIterator<Item = (&'a Fill, Option<Expected>)>,
    ) -> Result<Vec<Guarded>, ViewsError> {
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        let count = fills.len();
        for (fill, expected) in fills {
            self.add_fill(&mut exchange, &keys, mode, fill, htmls(&fill.rows), expected)?;
        }
        let mut answers = exchange.send().await;
        (0..count).map(|_| answers.next().and_then(|[answer]| guarded(answer))).collect()
    }

    fn add_fill(
        &self,
        exchange: &mut Exchange<'_>,
        keys: &KeySpace,
        mode: &'static str,
        fill: &Fill,
        html: Vec<String>,
        expected: Option<Expected>,
    ) -> Result<(), ViewsError> {
        let (unfilled_below, batch) = match expected {
            Some(Expected::Unfilled(below)) => (below.to_string(), String::new()),
            Some(Expected::Batch { part, name, number }) => {
                (String::new(), format!("{part} {} {number}", name.simple()))
            }
            None => Default::default(),
        };
        let mark = keys.watermark(fill.partition);
        let repaired = fill.rows.iter().filter(|_| mode == "repair").map(|(id, _)| id);
        let mut call = self.guard.prepare_invoke();
        call.key(&mark)
            .key(keys.listed(fill.partition))
            .key(keys.lists(fill.partition))
            .key(keys.quarantined(fill.partition))
            .key(keys.never(fill.partition))
            .arg(mode)
            .arg(fill.incarnation)
            .arg(&fill.epoch)
            .arg(fill.as_of.0)
            .arg("")
            .arg(unfilled_below)
            .arg(batch)
            .arg(fill.unfilled_below.map_or_else(String::new, |position| position.to_string()))
            .arg(keys.list_prefix(fill.partition))
            .arg(keys.announcements())
            .arg(lines(fill.flags.iter().map(|(id, _)| id).chain(repaired)))
            .arg(flag_lines(&fill.flags));
        self.add_rows(&mut call, keys, fill.partition, &fill.rows, html, &fill.flags)?;
        exchange.call(&mark, &self.guard, &call);
        Ok(())
    }

    /// Begins a new epoch of a partition at the head of its log, unless its watermark is no more the one
    /// that was found.
    pub async fn begin_epoch(&self, new: &NewEpoch) -> Result<Guarded, ViewsError> {
        let keys = self.keys();
        let (found_epoch, found_position) =
            new.found.as_ref().map_or_else(Default::default, |found| {
                (found.epoch.clone(), found.point.position.to_string())
            });
        let unfilled_below = match new.head.position {
            Position::ZERO => String::new(),
            Position(head) => (head + 1).to_string(),
        };
        let mark = keys.watermark(new.partition);
        let mut exchange = self.connection.exchange();
        let mut call = self.new_epoch.prepare_invoke();
        call.key(&mark)
            .key(keys.listed(new.partition))
            .key(keys.lists(new.partition))
            .key(keys.quarantined(new.partition))
            .key(keys.never(new.partition))
            .arg(found_epoch)
            .arg(found_position)
            .arg(new.incarnation)
            .arg(&new.epoch)
            .arg(new.head.position.0)
            .arg(new.head.event_id.to_string())
            .arg(unfilled_below)
            .arg(keys.list_prefix(new.partition));
        exchange.call(&mark, &self.new_epoch, &call);
        let [answer] = exchange.send().await.next()?;
        guarded(answer)
    }

    pub fn partition_of(&self, id: PostId) -> Partition {
        self.partitions.of(&id.to_string())
    }

    fn add_claim(&self, exchange: &mut Exchange<'_>, incarnation: u32, slug: &Slug, claim: Claim) {
        let key = self.keys.slug(incarnation, slug);
        let text = format!("{} {}", claim.post_id, claim.position);
        exchange.question(&key).set_ex(&key, text, KEPT_SECONDS.unsigned_abs());
    }

    fn add_rows(
        &self,
        call: &mut redis::ScriptInvocation<'_>,
        keys: &KeySpace,
        partition: Partition,
        rows: &[(PostId, Row)],
        htmls: Vec<String>,
        flags: &[(PostId, Flag)],
    ) -> Result<(), ViewsError> {
        for ((id, row), html) in rows.iter().zip(htmls) {
            let stored = StoredRow::try_from(row)?;
            let lists = row.page.as_ref().map_or_else(Vec::new, memberships);
            let lists = lists
                .iter()
                .fold(String::new(), |lines, (list, place)| lines + &format!("{list}\t{place}\n"));
            call.key(keys.post(partition, *id)).arg(id.to_string()).arg(stored.position.0);
            match stored.page {
                Some(page) => call
                    .arg(if page.published { "published" } else { "draft" })
                    .arg(page.slug.as_ref().map_or("", Slug::as_str))
                    .arg(page.created_at.timestamp_micros())
                    .arg(&page.card[..])
                    .arg(&page.content[..])
                    .arg(html),
                None => call.arg("deleted").arg("").arg("").arg("").arg("").arg(""),
            };
            let flag = flags.iter().find(|(flagged, _)| flagged == id);
            call.arg(lists).arg(match flag {
                Some((_, Flag::Quarantined(position))) => position.to_string(),
                Some((_, Flag::Still | Flag::Released)) | None => String::new(),
            });
        }
        Ok(())
    }
}

/// The text of each row.
fn htmls(rows: &[(PostId, Row)]) -> Vec<String> {
    let html = |row: &Row| row.page.as_ref().map(PostPage::html);
    rows.iter().map(|(_, row)| html(row).unwrap_or_default()).collect()
}

/// What a move of the watermark changes: each post on a line, and behind it the slugs that it took.
fn announcement(advance: &Advance) -> String {
    let flagged = advance.flags.iter().filter(|(_, flag)| *flag != Flag::Still);
    let mut text = lines(flagged.map(|(id, _)| id));
    for (id, _) in &advance.rows {
        let slugs = advance.slugs.iter().filter(|(_, claim)| claim.post_id == *id);
        let slugs = slugs.fold(String::new(), |slugs, (slug, _)| format!("{slugs} {slug}"));
        text += &format!("{id}{slugs}\n");
    }
    text
}

fn lines<'a>(ids: impl Iterator<Item = &'a PostId>) -> String {
    ids.fold(String::new(), |lines, id| format!("{lines}{id}\n"))
}

fn flag_lines(flags: &[(PostId, Flag)]) -> String {
    flags.iter().fold(String::new(), |lines, (id, flag)| match flag {
        Flag::Quarantined(position) => format!("{lines}{id} {position}\n"),
        Flag::Still => format!("{lines}{id} ?\n"),
        Flag::Released => format!("{lines}{id} \n"),
    })
}

fn read_claim(text: &str) -> Option<Claim> {
    let (post_id, position) = text.split_once(' ')?;
    let position = Position(position.parse().ok()?);
    Some(Claim { post_id: post_id.parse().ok()?, position })
}

fn guarded(answer: Value) -> Result<Guarded, ViewsError> {
    if answer == Value::Int(1) {
        return Ok(Guarded::Written);
    }
    if answer == Value::Nil {
        return Ok(Guarded::Refused(None));
    }
    watermark(answer).map(Guarded::Refused)
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

fn stored_row(answer: Value, epoch: &str) -> Result<Option<StoredRow>, ViewsError> {
    let mut fields = values::<Vec<u8>>(answer)?.into_iter();
    let mut next = || fields.next().flatten();
    let (
        Some(of_epoch),
        Some(position),
        Some(state),
        Some(slug),
        Some(created_at),
        Some(card),
        content,
    ) = (next(), next(), next(), next(), next(), next(), next())
    else {
        return Ok(None);
    };
    if of_epoch != epoch.as_bytes() {
        return Ok(None);
    }
    let malformed = || ViewsError::Malformed("a row");
    let text = |bytes| String::from_utf8(bytes).map_err(|_| malformed());
    let number = |bytes| text(bytes)?.parse::<i64>().map_err(|_| malformed());
    let position = Position::from_i64(number(position)?);
    if state == b"deleted" {
        return Ok(Some(StoredRow { position, page: None }));
    }
    let slug = text(slug)?;
    let page = StoredPage {
        published: state == b"published",
        slug: (!slug.is_empty()).then(|| Slug::recorded(slug)),
        created_at: DateTime::from_timestamp_micros(number(created_at)?).ok_or_else(malformed)?,
        card: card.into(),
        content: content.unwrap_or_default().into(),
    };
    Ok(Some(StoredRow { position, page: Some(page) }))
}

pub(crate) fn values<T: redis::FromRedisValue>(
    answer: Value,
) -> Result<Vec<Option<T>>, ViewsError> {
    read(answer)
}

pub(crate) fn read<T: redis::FromRedisValue>(answer: Value) -> Result<T, ViewsError> {
    Ok(redis::from_redis_value(answer).map_err(RedisError::from)?)
}
