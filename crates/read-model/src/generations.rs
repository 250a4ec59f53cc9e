//! What is done to a generation as a whole: which one is active, how large it is, and its removal.

use domain::{Partition, PostId};
use redis::Value;

use crate::views::{read, values};
use crate::{VIEW_VERSION, Views, ViewsError};

/// How many posts are removed, or looked at, in one step: never so many that Redis would keep others waiting.
const STEP: usize = 500;
/// So many rows stand for all when a generation is weighed.
const WEIGHED: isize = 50;

/// How large a generation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// How many posts it knows. Their rows may have expired.
    pub posts: u64,
    /// An estimate, from some of its rows.
    pub bytes: u64,
}

/// How far the removal of a generation has come.
#[derive(Debug, Default)]
pub struct Removal {
    /// For each partition: where to go on with its rows. `None` once no row is left.
    cursors: Option<Vec<Option<u64>>>,
    /// Of how many partitions the lists are gone too.
    emptied: usize,
    /// Where to go on with the lists of the next one.
    list_cursor: u64,
}

impl Views {
    /// The generation that readers of our version are answered from, as Redis remembers it, and the number of the
    /// switch to it.
    pub async fn active_generation(&self) -> Result<Option<(u32, u64)>, ViewsError> {
        let key = self.keys.active_generation(VIEW_VERSION);
        let mut exchange = self.connection.exchange();
        exchange.question(&key).get(&key);
        let [answer] = exchange.send().await.next()?;
        let text: Option<String> = read(answer)?;
        let active = |text: String| {
            let (turn, generation) = text.split_once(' ')?;
            Some((generation.parse().ok()?, turn.parse().ok()?))
        };
        text.map(|text| active(text).ok_or(ViewsError::Malformed("the active generation")))
            .transpose()
    }

    /// Has Redis remember which one it is.
    pub async fn remember_active(&self, generation: u32, turn: u64) -> Result<(), ViewsError> {
        let key = self.keys.active_generation(VIEW_VERSION);
        let mut exchange = self.connection.exchange();
        exchange.question(&key).set(&key, format!("{turn} {generation}"));
        let [_done] = exchange.send().await.next()?;
        Ok(())
    }

    /// Weighs a generation.
    pub async fn size(&self) -> Result<Size, ViewsError> {
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        for partition in self.partitions.all() {
            let listed = keys.listed(partition);
            let pipe = exchange.question(&listed);
            pipe.hlen(&listed);
            pipe.cmd("MEMORY").arg("USAGE").arg(&listed);
            pipe.cmd("HRANDFIELD").arg(&listed).arg(WEIGHED);
        }
        let mut answers = exchange.send().await;
        let (mut posts, mut bytes, mut weighed) = (0, 0, 0);
        let mut sample = self.connection.exchange();
        for partition in self.partitions.all() {
            let [count, listed, ids] = answers.next()?;
            posts += read::<u64>(count)?;
            // The places in the lists take about as much as what is remembered of them.
            bytes += 2 * read::<Option<u64>>(listed)?.unwrap_or(0);
            for id in values::<String>(ids)?.into_iter().flatten() {
                let Ok(id) = id.parse::<PostId>() else { continue };
                weighed += 1;
                let row = keys.post(partition, id);
                sample.question(&row).cmd("MEMORY").arg("USAGE").arg(&row);
            }
        }
        let rows = values::<u64>(Value::Array(sample.send().await.singles()?))?;
        let rows: u64 = rows.into_iter().flatten().sum();
        Ok(Size { posts, bytes: bytes + rows * posts / weighed.max(1) })
    }

    /// Removes a part of this generation; `true` once nothing is left of it. The watermarks go first, so that whoever has
    /// not heard that it is over is refused.
    pub async fn remove_some(&self, removal: &mut Removal) -> Result<bool, ViewsError> {
        let Some(cursors) = &mut removal.cursors else {
            self.remove_watermarks().await?;
            removal.cursors = Some(self.partitions.all().map(|_| Some(0)).collect());
            return Ok(false);
        };
        let keys = self.keys();
        let left: Vec<(Partition, u64)> =
            self.partitions.all().zip(&*cursors).filter_map(|(p, at)| Some((p, (*at)?))).collect();
        if left.is_empty() {
            return self.remove_some_lists(removal).await;
        }
        let mut exchange = self.connection.exchange();
        for (partition, cursor) in &left {
            let listed = keys.listed(*partition);
            let pipe = exchange.question(&listed);
            pipe.cmd("HSCAN").arg(&listed).arg(*cursor).arg("COUNT").arg(STEP);
        }
        let scanned = exchange.send().await.singles()?;
        let (mut rows, mut nexts) = (vec![], vec![]);
        for ((partition, _), answer) in left.iter().zip(scanned) {
            let (next, entries): (u64, Vec<(String, String)>) = read(answer)?;
            let ids = entries.iter().filter_map(|(id, _)| id.parse::<PostId>().ok());
            rows.extend(ids.map(|id| keys.post(*partition, id)));
            nexts.push((*partition, (next != 0).then_some(next)));
        }
        // Where a part of a cluster is away, the same step is taken again.
        self.unlink(rows).await?;
        for (partition, next) in nexts {
            if let Some(cursor) = cursors.get_mut(usize::from(partition.0)) {
                *cursor = next;
            }
        }
        Ok(false)
    }

    async fn remove_watermarks(&self) -> Result<(), ViewsError> {
        let marks = self.watermarks().await?;
        let keys = self.keys();
        let marks = self.partitions.all().zip(marks);
        let doomed = marks.flat_map(|(partition, mark)| {
            let notes = mark.map(|mark| keys.built(partition, &mark.epoch));
            notes.into_iter().chain([keys.watermark(partition)])
        });
        self.unlink(doomed.collect()).await
    }

    async fn remove_some_lists(&self, removal: &mut Removal) -> Result<bool, ViewsError> {
        let Some(partition) = self.partitions.all().nth(removal.emptied) else { return Ok(true) };
        let keys = self.keys();
        let (next, names) = self.some_list_names(partition, removal.list_cursor).await?;
        let prefix = keys.list_prefix(partition);
        self.unlink(names.iter().map(|name| format!("{prefix}{name}")).collect()).await?;
        removal.list_cursor = next;
        if next == 0 {
            // These last, for they tell what is left.
            let (listed, lists) = (keys.listed(partition), keys.lists(partition));
            self.unlink(vec![listed, lists, keys.quarantined(partition)]).await?;
            removal.emptied += 1;
        }
        Ok(false)
    }

    /// Some of the lists that a partition has, perhaps one of them twice; and where to go on, zero at the end.
    pub async fn some_list_names(
        &self,
        partition: Partition,
        cursor: u64,
    ) -> Result<(u64, Vec<String>), ViewsError> {
        let lists = self.keys().lists(partition);
        let mut exchange = self.connection.exchange();
        exchange.question(&lists).cmd("SSCAN").arg(&lists).arg(cursor).arg("COUNT").arg(STEP);
        let [answer] = exchange.send().await.next()?;
        read(answer)
    }

    /// One by one: while a slot moves, some of its keys may be here and some there.
    pub(crate) async fn unlink(&self, doomed: Vec<String>) -> Result<(), ViewsError> {
        let mut exchange = self.connection.exchange();
        for key in &doomed {
            exchange.question(key).unlink(key);
        }
        exchange.send().await.singles().map(drop)
    }
}
