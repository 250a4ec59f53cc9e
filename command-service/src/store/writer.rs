//! Group commit: commits queue to one task, which hands all that wait to Postgres in a single call of
//! `append_events`. There each is judged on its own.
//!
//! One call is one fsync for the whole batch, and the lock under which positions are given is held inside
//! the server only. Nothing waits for a batch to fill: a commit that comes alone goes alone.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use domain::{AuthorId, Position, Slug};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Notify, mpsc, oneshot};

use super::append;
use super::room::{QueueLimits, Room, Taken};

/// How many commits one call takes at most.
pub(super) const MAX_COMMITS: usize = 256;
/// How many bytes one call takes at most, unless a single commit is larger.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// After this long a call counts as lost, and the batch is sent again.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// The events of one decision about one aggregate.
#[derive(Debug)]
pub struct Commit {
    /// By which it is known again if it is sent twice: the id of its first event, if it has one.
    pub uid: uuid::Uuid,
    pub aggregate_type: &'static str,
    pub aggregate_id: String,
    /// The sequence of the last event that the decision rests on.
    pub version: u64,
    /// The partition of the aggregate.
    pub partition: u16,
    /// The slug that it claims.
    pub slug: Option<Slug>,
    /// None of them asks whether the version is still the present one.
    pub events: Vec<NewEvent>,
    /// What is to be kept under the key that the client gave.
    pub kept: Option<Kept>,
    /// A JSON object of strings, the same for all its events.
    pub metadata: String,
}

/// What became of a command, under the key that its client gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub author: AuthorId,
    pub key: String,
    /// What the request was.
    pub request_hash: [u8; 32],
    /// How it is answered: a JSON object.
    pub answer: String,
}

/// An event to be recorded.
#[derive(Debug)]
pub struct NewEvent {
    /// Made by us, so that a commit sent twice is recorded once.
    pub id: uuid::Uuid,
    pub event_type: String,
    pub event_version: String,
    pub payload: String,
}

impl Commit {
    fn bytes(&self) -> usize {
        let event = |event: &NewEvent| 256 + event.payload.len() + self.metadata.len();
        let kept = self.kept.as_ref().map_or(0, |kept| 512 + kept.key.len() + kept.answer.len());
        256 + self.aggregate_id.len() + self.events.iter().map(event).sum::<usize>() + kept
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It stands in the log; these are the version and the position of the last event of its stream.
    Recorded { version: u64, position: Position },
    /// Another commit was recorded under its key; this is what that one left.
    Done { version: u64, position: Position, request_hash: Vec<u8>, answer: String },
    /// The stream is at another version, this one.
    Conflict { version: u64 },
    /// Its slug belongs to another post.
    SlugTaken,
}

/// Why a commit was not judged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing was sent, and there was no time to be lost.
    #[error("too many commits are waiting")]
    Overloaded,
    #[error("the writer has stopped")]
    Stopped,
    #[error("Postgres refused the commit")]
    Rejected(#[source] sqlx::Error),
}

type Answer = Result<Judged, AppendError>;

/// Why a call has no answer.
enum CallError {
    /// Nothing was sent.
    Connect(sqlx::Error),
    Sql(sqlx::Error),
}

struct Waiting {
    commit: Commit,
    bytes: usize,
    since: Instant,
    answer: oneshot::Sender<Answer>,
    /// Given back once it is answered.
    _room: Taken,
}

/// Where commits are handed in. When all of these are gone the writer ends, after the last commit.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::UnboundedSender<Waiting>,
    room: Arc<Room>,
}

/// The task behind the queue.
#[derive(Debug)]
pub struct WriterTask {
    address: PgConnectOptions,
    /// One of its own and not of a pool: after a call that was not answered it is thrown away, whatever
    /// state it is in.
    connection: Option<PgConnection>,
    queue: mpsc::UnboundedReceiver<Waiting>,
    room: Arc<Room>,
    recorded: Arc<Notify>,
    numbers: Numbers,
}

/// What is counted for every commit or call.
#[derive(Debug)]
struct Numbers {
    batch_size: metrics::Histogram,
    wait: metrics::Histogram,
    call: metrics::Histogram,
}

/// A writer whose queue has these limits; it rings `recorded` after every batch that recorded something.
pub fn writer(
    address: PgConnectOptions,
    limits: QueueLimits,
    recorded: Arc<Notify>,
) -> (Writer, WriterTask) {
    let (sender, queue) = mpsc::unbounded_channel();
    let room = Room::new(limits);
    let numbers = Numbers {
        batch_size: metrics::histogram!("append_batch_size"),
        wait: metrics::histogram!("append_wait_seconds"),
        call: metrics::histogram!("append_call_seconds"),
    };
    let writer = Writer { queue: sender, room: Arc::clone(&room) };
    (writer, WriterTask { address, connection: None, queue, room, recorded, numbers })
}

impl Writer {
    /// Queues a commit and waits until it is judged. One that nobody waits for any more is dropped, unless it
    /// has been sent to Postgres already: then it is judged all the same.
    pub async fn append(&self, commit: Commit) -> Answer {
        let bytes = commit.bytes();
        let room = self.room.take(bytes)?;
        let (answer, judged) = oneshot::channel();
        let waiting = Waiting { commit, bytes, since: Instant::now(), answer, _room: room };
        self.queue.send(waiting).map_err(|_| AppendError::Stopped)?;
        judged.await.unwrap_or(Err(AppendError::Stopped))
    }
}

impl WriterTask {
    /// Records commits until every [`Writer`] is gone and the last commit is answered.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.queue.recv().await {
                    Some(commit) => waiting.push_back(commit),
                    None => return Ok(()),
                }
            }
            while let Ok(commit) = self.queue.try_recv() {
                waiting.push_back(commit);
            }
            // Whoever has given up waiting was told that it failed, and may have sent it again.
            waiting.retain(|waiting| !waiting.answer.is_closed());
            let batch = take_batch(&mut waiting);
            if !batch.is_empty() {
                for waiting in &batch {
                    self.numbers.wait.record(waiting.since.elapsed());
                }
                let taken = self.record(batch).await;
                refuse_taken(&mut waiting, &taken);
            }
        }
    }

    /// Records a batch, and answers for each of its commits.
    ///
    /// As long as it is not known what became of a call, the same commits are sent again with the same event
    /// ids: looking whether they are there would not be enough, for the lost call may still be waiting for
    /// the lock. If the call fails in SQL nothing was recorded, and the commits go again one by one, so that
    /// the bad one fails alone.
    ///
    /// Returns the slugs that have an owner for good now.
    async fn record(&mut self, mut batch: Vec<Waiting>) -> HashSet<Slug> {
        self.room.call_begins();
        let judged = self.judge(&batch).await;
        self.numbers.call.record(self.room.call_ends());
        match judged {
            Ok(judgements) => self.answer(batch, judgements),
            Err(error) if batch.len() == 1 => {
                tracing::error!(error = %error, "Postgres refused a commit: {error}");
                if let Some(waiting) = batch.pop() {
                    // Nobody waits for it any more if sending fails.
                    let _ = waiting.answer.send(Err(AppendError::Rejected(error)));
                }
                HashSet::new()
            }
            Err(error) => {
                tracing::warn!(error = %error, "A batch failed in SQL, its commits go one by one: {error}");
                let mut taken = HashSet::new();
                for waiting in batch {
                    taken.extend(Box::pin(self.record(vec![waiting])).await);
                }
                taken
            }
        }
    }

    /// The judgements of Postgres, in the order of the batch, or the SQL error that the call ended with.
    async fn judge(&mut self, batch: &[Waiting]) -> Result<Vec<Judged>, sqlx::Error> {
        let commits: Vec<&Commit> = batch.iter().map(|waiting| &waiting.commit).collect();
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_secs(1))
            .with_jitter()
            .without_max_times()
            .build();
        let mut sent_before = false;
        loop {
            let why = match tokio::time::timeout(CALL_LIMIT, self.call(&commits)).await {
                Ok(Ok(judgements)) => {
                    self.numbers.batch_size.record(commits.len() as f64);
                    return Ok(judgements);
                }
                Ok(Err(CallError::Sql(error))) if append::is_final(&error, !sent_before) => {
                    return Err(error);
                }
                Ok(Err(CallError::Sql(error) | CallError::Connect(error))) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            sent_before = true;
            metrics::counter!("append_resent_total").increment(1);
            tracing::warn!(why, "What became of a batch is not known, it is sent again: {why}");
            tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
        }
    }

    async fn call(&mut self, commits: &[&Commit]) -> Result<Vec<Judged>, CallError> {
        // Taken out, so that it is gone if the call fails or is given up.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => PgConnection::connect_with(&self.address).await.map_err(CallError::Connect)?,
        };
        let judgements = append::call(&mut connection, commits).await.map_err(CallError::Sql)?;
        self.connection = Some(connection);
        Ok(judgements)
    }

    fn answer(&self, batch: Vec<Waiting>, judgements: Vec<Judged>) -> HashSet<Slug> {
        let mut recorded = false;
        let mut taken = HashSet::new();
        for (waiting, judged) in batch.into_iter().zip(judgements) {
            if matches!(judged, Judged::Recorded { .. } | Judged::SlugTaken) {
                taken.extend(waiting.commit.slug.clone());
            }
            recorded |=
                matches!(judged, Judged::Recorded { .. }) && !waiting.commit.events.is_empty();
            // Nobody waits for it any more if sending fails.
            let _ = waiting.answer.send(Ok(judged));
        }
        if recorded {
            self.recorded.notify_one();
        }
        taken
    }
}

/// Refuses new posts whose slug has just gone to another: it will never be given again. Many of one title at
/// once would otherwise go one by one, since a batch takes only one of them.
fn refuse_taken(waiting: &mut VecDeque<Waiting>, taken: &HashSet<Slug>) {
    if taken.is_empty() {
        return;
    }
    for next in std::mem::take(waiting) {
        let commit = &next.commit;
        // One that is not new may be the owner's, and one with a key may have been done before.
        let settled = commit.version == 0 && commit.kept.is_none();
        if settled && commit.slug.as_ref().is_some_and(|slug| taken.contains(slug)) {
            // Nobody waits for it any more if sending fails.
            let _ = next.answer.send(Ok(Judged::SlugTaken));
        } else {
            waiting.push_back(next);
        }
    }
}

/// Takes from the front what may go in one call: at most one commit of each aggregate, slug and key. What
/// stays behind keeps its order, and holds back what follows it on the same aggregate, slug or key.
fn take_batch(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut taken_ids = HashSet::new();
    let mut taken_slugs = HashSet::new();
    let mut taken_keys = HashSet::new();
    let mut behind = VecDeque::new();
    while let Some(next) = waiting.pop_front() {
        let fits =
            batch.len() < MAX_COMMITS && (batch.is_empty() || bytes + next.bytes <= MAX_BYTES);
        if !fits {
            waiting.push_front(next);
            break;
        }
        let free_id = taken_ids.insert(next.commit.aggregate_id.clone());
        let free_slug = next.commit.slug.clone().is_none_or(|slug| taken_slugs.insert(slug));
        let key = next.commit.kept.as_ref().map(|kept| (kept.author.clone(), kept.key.clone()));
        let free_key = key.is_none_or(|key| taken_keys.insert(key));
        if free_id && free_slug && free_key {
            bytes += next.bytes;
            batch.push(next);
        } else {
            behind.push_back(next);
        }
    }
    behind.append(waiting);
    *waiting = behind;
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_takes_one_commit_of_each_aggregate_and_slug() {
        let mut queue =
            queue([("a", None), ("b", Some("s")), ("a", None), ("c", Some("s")), ("d", None)]);
        assert_eq!(ids(&take_batch(&mut queue)), ["a", "b", "d"]);
        assert_eq!(ids(&take_batch(&mut queue)), ["a", "c"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_stays_behind_holds_back_what_follows_it() {
        let mut queue = queue([("a", Some("s")), ("b", Some("s")), ("b", None), ("c", Some("t"))]);
        assert_eq!(ids(&take_batch(&mut queue)), ["a", "c"]);
        assert_eq!(ids(&take_batch(&mut queue)), ["b"]);
        assert_eq!(ids(&take_batch(&mut queue)), ["b"]);
    }

    #[test]
    fn a_new_post_is_told_at_once_that_its_slug_has_gone_to_another() {
        let mut queue = queue([("a", Some("s")), ("b", Some("t")), ("c", Some("s")), ("d", None)]);
        queue[2].commit.version = 1;
        refuse_taken(&mut queue, &HashSet::from(["s".parse().unwrap()]));
        assert_eq!(ids(queue.make_contiguous()), ["b", "c", "d"]);
    }

    #[test]
    fn a_batch_is_bounded_in_commits_and_in_bytes() {
        let names: Vec<String> = (0..MAX_COMMITS + 1).map(|n| n.to_string()).collect();
        let mut many: VecDeque<_> = names.iter().map(|name| waiting(name, None, 10)).collect();
        assert_eq!(take_batch(&mut many).len(), MAX_COMMITS);
        assert_eq!(many.len(), 1);

        let mut large: VecDeque<_> = ["a", "b"].map(|id| waiting(id, None, MAX_BYTES)).into();
        assert_eq!(ids(&take_batch(&mut large)), ["a"]);
        assert_eq!(ids(&take_batch(&mut large)), ["b"]);
    }

    fn ids(batch: &[Waiting]) -> Vec<&str> {
        batch.iter().map(|waiting| waiting.commit.aggregate_id.as_str()).collect()
    }

    fn queue<const N: usize>(commits: [(&str, Option<&str>); N]) -> VecDeque<Waiting> {
        commits.map(|(id, slug)| waiting(id, slug, 10)).into()
    }

    fn waiting(id: &str, slug: Option<&str>, payload: usize) -> Waiting {
        let event = NewEvent {
            id: uuid::Uuid::nil(),
            event_type: String::new(),
            event_version: String::new(),
            payload: "x".repeat(payload),
        };
        let commit = Commit {
            uid: event.id,
            aggregate_type: "post",
            aggregate_id: id.to_owned(),
            version: 0,
            partition: 0,
            slug: slug.map(|slug| slug.parse().unwrap()),
            events: vec![event],
            metadata: String::new(),
            kept: None,
        };
        let limits = QueueLimits { kib: 4096, wait: Duration::MAX };
        let room = Room::new(limits).take(1).unwrap();
        let (bytes, answer) = (commit.bytes(), oneshot::channel().0);
        Waiting { commit, bytes, since: Instant::now(), answer, _room: room }
    }
}
