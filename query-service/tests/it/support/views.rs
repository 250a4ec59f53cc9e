//! Views in Redis, written as the projector does it.

use std::collections::BTreeSet;

use domain::post::PostEvent;
use domain::{Partition, Point, Position, PostId, StoredEvent as _};
use event_log::EventLog;
use read_model::{
    Advance, Fill, Flag, Guarded, NewEpoch, Row, VIEW_VERSION, Watermark, fold_pages,
};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use testkit::connection_to;
use uuid::Uuid;

use super::Blog;

impl Blog {
    /// Begins an epoch of every partition at its head, and fills nothing: whatever was stored counts as
    /// absent.
    pub(crate) async fn begin_epochs(&self) {
        for partition in self.store.partitions.all() {
            self.begin_epoch(partition, Watermark::new_epoch(Uuid::new_v4())).await;
        }
    }

    /// The same for the partition of one post, under a name of somebody else's.
    pub(crate) async fn begin_epoch_of(&self, id: PostId, epoch: &str) {
        self.begin_epoch(self.views.partition_of(id), epoch.to_owned()).await;
    }

    async fn begin_epoch(&self, partition: Partition, epoch: String) {
        let number = usize::from(partition.0);
        let head = self.log().heads().await.unwrap()[number];
        let found = self.views.watermarks().await.unwrap().swap_remove(number);
        let new = NewEpoch { partition, incarnation: self.store.incarnation, epoch, head, found };
        assert_eq!(self.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    }

    /// Clears the marks that partitions are to be filled, with all rows or without any.
    pub(crate) async fn end_filling(&self, with_rows: bool) {
        let as_of = self.log().head().await.unwrap();
        let marks = self.views.watermarks().await.unwrap();
        for (partition, mark) in self.store.partitions.all().zip(marks) {
            let mark = mark.unwrap();
            let rows =
                if with_rows { self.rows_above(partition, Position::ZERO).await } else { vec![] };
            let (incarnation, epoch) = (mark.incarnation, mark.epoch);
            let unfilled_below = Some(Position::ZERO);
            let fill =
                Fill { partition, incarnation, epoch, as_of, rows, unfilled_below, flags: vec![] };
            assert_eq!(self.views.fill(&fill).await.unwrap(), Guarded::Written);
        }
    }

    /// Brings the views of all partitions to the head of the log.
    pub(crate) async fn project(&self) {
        if self.views.watermarks().await.unwrap().iter().any(Option::is_none) {
            self.begin_epochs().await;
            return self.end_filling(true).await;
        }
        let heads = self.log().heads().await.unwrap();
        let marks = self.views.watermarks().await.unwrap();
        for ((partition, to), mark) in self.store.partitions.all().zip(heads).zip(marks) {
            let mark = mark.unwrap();
            let (incarnation, epoch, from) = (mark.incarnation, mark.epoch, mark.point);
            let rows = self.rows_above(partition, from.position).await;
            let advance = Advance {
                partition,
                incarnation,
                epoch,
                from,
                to,
                rows,
                slugs: vec![],
                flags: vec![],
            };
            let answer = self.views.advance(&[advance]).await.unwrap().remove(0);
            assert_eq!(answer.unwrap(), Guarded::Written);
        }
    }

    /// Has readers be answered from a generation, as the projector does it.
    pub(crate) async fn switch_to(&self, generation: i32) {
        sqlx::query("UPDATE generations SET state = 'kept'").execute(&self.pool).await.unwrap();
        let turn: i64 = sqlx::query_scalar(
            "INSERT INTO generations (number, view_version, state, incarnation, head, parts, turn)
             SELECT $1, $2, 'active', $3, 0, 0, coalesce(max(turn), 0) + 1 FROM generations
             ON CONFLICT (number) DO UPDATE SET state = 'active', turn = excluded.turn
             RETURNING turn",
        )
        .bind(generation)
        .bind(i32::try_from(VIEW_VERSION).unwrap())
        .bind(i32::try_from(self.store.incarnation).unwrap())
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let (generation, turn) = (generation.unsigned_abs(), turn.unsigned_abs());
        self.views.remember_active(generation, turn).await.unwrap();
    }

    /// Moves the watermark of a post's partition and its row one event past the head of the log.
    pub(crate) async fn run_ahead(&self, id: PostId) {
        let partition = self.views.partition_of(id);
        let mark = self.views.row(id).await.unwrap().watermark.unwrap();
        let row = Row {
            position: Position(self.log().head().await.unwrap().0 + 1),
            ..self.row(id).await
        };
        let advance = Advance {
            partition,
            incarnation: mark.incarnation,
            epoch: mark.epoch,
            from: mark.point,
            to: Point { position: row.position, event_id: Uuid::new_v4() },
            rows: vec![(id, row)],
            slugs: vec![],
            flags: vec![],
        };
        let answer = self.views.advance(&[advance]).await.unwrap().remove(0);
        assert_eq!(answer.unwrap(), Guarded::Written);
    }

    /// Sets a page aside from an event on, at which nothing but the watermark changes.
    pub(crate) async fn set_aside(&self, id: PostId, event: Position) {
        let mark = self.views.row(id).await.unwrap().watermark.unwrap();
        let advance = Advance {
            partition: self.views.partition_of(id),
            incarnation: mark.incarnation,
            epoch: mark.epoch,
            from: mark.point,
            to: Point { position: event, event_id: Uuid::new_v4() },
            rows: vec![],
            slugs: vec![],
            flags: vec![(id, Flag::Quarantined(event))],
        };
        let answer = self.views.advance(&[advance]).await.unwrap().remove(0);
        assert_eq!(answer.unwrap(), Guarded::Written);
    }

    /// Takes a row away, as Redis does when it runs short of memory.
    pub(crate) async fn evict(&self, id: PostId) {
        let (mut redis, key) = self.redis_of(id).await;
        let removed: u32 = redis.del(key).await.unwrap();
        assert_eq!(removed, 1, "there was no such row");
    }

    /// The same where the row may be gone already.
    pub(crate) async fn evict_if_there(&self, id: PostId) {
        let (mut redis, key) = self.redis_of(id).await;
        redis.del::<_, ()>(key).await.unwrap();
    }

    /// Puts another text beside a page in Redis.
    pub(crate) async fn replace_text(&self, id: PostId, html: &str) {
        let (mut redis, key) = self.redis_of(id).await;
        let added: u32 = redis.hset(key, "html", html).await.unwrap();
        assert_eq!(added, 0, "there was no text");
    }

    /// Puts other bytes in place of the content of a page in Redis, a JSON string.
    pub(crate) async fn replace_content(&self, id: PostId, content: &str) {
        let (mut redis, key) = self.redis_of(id).await;
        let added: u32 = redis.hset(key, "content", content).await.unwrap();
        assert_eq!(added, 0, "there was no content");
    }

    /// Takes the text beside a page away.
    pub(crate) async fn forget_text(&self, id: PostId) {
        let (mut redis, key) = self.redis_of(id).await;
        let removed: u32 = redis.hdel(key, "html").await.unwrap();
        assert_eq!(removed, 1, "there was no text");
    }

    /// All keys of this blog in Redis with what they hold, as in a dump.
    pub(crate) async fn dump(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut redis = self.redis().await;
        let mut dump = vec![];
        for key in self.keys(&mut redis).await {
            let value = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
            dump.push((key, value));
        }
        dump
    }

    /// Has Redis come back from a dump: all that was written since is lost, in one step.
    pub(crate) async fn restore(&self, dump: &[(Vec<u8>, Vec<u8>)]) {
        let mut redis = self.redis().await;
        let mut pipe = redis::pipe();
        pipe.atomic().del(self.keys(&mut redis).await);
        for (key, value) in dump {
            pipe.cmd("RESTORE").arg(key).arg(0).arg(value).arg("REPLACE");
        }
        pipe.query_async::<()>(&mut redis).await.unwrap();
    }

    async fn keys(&self, redis: &mut MultiplexedConnection) -> Vec<Vec<u8>> {
        let pattern = format!("*{}*", self.settings.prefix);
        redis::cmd("KEYS").arg(pattern).query_async(redis).await.unwrap()
    }

    async fn redis(&self) -> MultiplexedConnection {
        testkit::patient_connection(&self.settings.redis_url).await.unwrap()
    }

    /// A connection to where the row of a post lies, and its key.
    pub(crate) async fn redis_of(&self, id: PostId) -> (MultiplexedConnection, String) {
        let (prefix, partition) = (&self.settings.prefix, self.views.partition_of(id));
        let key = format!("{{{prefix}:g1:{partition}}}:post:{id}");
        (connection_to(&self.settings.redis_url, &key).await.unwrap(), key)
    }

    /// A post as the log has it.
    pub(crate) async fn row(&self, id: PostId) -> Row {
        self.rows(&[id]).await.remove(0).1
    }

    async fn rows_above(&self, partition: Partition, position: Position) -> Vec<(PostId, Row)> {
        let (mut ids, mut after) = (BTreeSet::<PostId>::new(), position);
        loop {
            let events = self.log().read_partition_after(partition, after, 10_000).await.unwrap();
            let Some(last) = events.last() else { break };
            after = last.position;
            ids.extend(events.iter().map(|event| event.stream_id.parse::<PostId>().unwrap()));
        }
        self.rows(&Vec::from_iter(ids)).await
    }

    async fn rows(&self, ids: &[PostId]) -> Vec<(PostId, Row)> {
        let events = self.log().pages(ids).await.unwrap().events;
        let events: Vec<_> =
            events.into_iter().map(|event| PostEvent::decode(event).unwrap()).collect();
        fold_pages(&events).into_iter().collect()
    }

    pub(super) fn log(&self) -> EventLog {
        EventLog::new(self.pool.clone(), self.store.partitions)
    }
}
