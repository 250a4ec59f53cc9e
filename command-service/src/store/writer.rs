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
use service_runtime::progress;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, mpsc, oneshot};

use super::flight::{CallEnd, Flight, Reason, State};
use super::locks::Lock;
use super::room::{QueueLimits, Room, Taken};
use super::session::{CallError, Session};
use super::ticket::Ticket;

/// How many commits one call takes at most.
pub(super) const MAX_COMMITS: usize = 256;
/// How many bytes one call takes at most, unless a single commit is larger.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Maximum delay between two attempts to send a batch.
const MAX_DELAY: Duration = Duration::from_secs(1);

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

/// Reason for which a commit has no judgement. Unless its outcome is unknown, it is certainly not recorded.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing was sent, and there was no time to be lost.
    #[error("too many commits are waiting")]
    Overloaded,
    #[error("the writer has stopped")]
    Stopped,
    #[error("the commit could not be sent before its deadline")]
    TooLate,
    /// Sent, but not answered before the deadline. It may be recorded, or may still be.
    #[error("the commit was sent to Postgres, and its outcome is unknown")]
    OutcomeUnknown,
    #[error("Postgres refused the commit: {0}")]
    Rejected(sqlx::Error),
    /// Postgres cancelled the call with this commit alone, each time it was sent.
    #[error("Postgres cancelled the commit: {0}")]
    Cancelled(sqlx::Error),
}

type Answer = Result<Judged, AppendError>;

/// End of a batch, or of its way as a whole.
enum Landing {
    Judged(Vec<Judged>),
    /// Goes on as two halves.
    Halved,
    /// A single commit failed, and is not recorded.
    Failed(AppendError),
    /// No requester waits for it any more.
    Withdrawn,
}

struct Waiting {
    commit: Commit,
    bytes: usize,
    since: Instant,
    ticket: Ticket,
    answer: oneshot::Sender<Answer>,
    /// Given back once it is answered.
    _room: Taken,
    /// The lock of the aggregate, released no earlier than the commit is judged or dropped.
    _lock: Option<Lock>,
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
    session: Session,
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
    (writer, WriterTask { session: Session::new(address), queue, room, recorded, numbers })
}

impl Writer {
    /// Queues a commit and waits until it is judged, however long that takes.
    ///
    /// A commit whose caller stops waiting is not sent. If it was sent already, it may be recorded.
    pub async fn append(&self, commit: Commit) -> Answer {
        let (ticket, judged) = self.queue(None, commit)?;
        judged.await.unwrap_or_else(|_closed| Err(ticket.give_up(AppendError::Stopped)))
    }

    /// Queues a commit and waits until it is judged, or until the deadline. A commit that was not sent
    /// by then never is.
    pub async fn append_by(&self, deadline: Instant, commit: Commit) -> Answer {
        self.append_under(None, deadline, commit).await
    }

    /// As [`Writer::append_by`]. The lock is held until the commit is judged or withdrawn, even if the caller
    /// gives up before.
    pub(super) async fn append_under(
        &self,
        lock: Option<Lock>,
        deadline: Instant,
        commit: Commit,
    ) -> Answer {
        let (ticket, judged) = self.queue(lock, commit)?;
        match tokio::time::timeout_at(deadline.into(), judged).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_closed)) => Err(ticket.give_up(AppendError::Stopped)),
            Err(_elapsed) => Err(ticket.give_up(AppendError::TooLate)),
        }
    }

    fn queue(
        &self,
        lock: Option<Lock>,
        commit: Commit,
    ) -> Result<(Ticket, oneshot::Receiver<Answer>), AppendError> {
        let bytes = commit.bytes();
        let room = self.room.take(bytes)?;
        let (answer, judged) = oneshot::channel();
        let ticket = Ticket::default();
        let waiting = Waiting {
            commit,
            bytes,
            since: Instant::now(),
            ticket: ticket.clone(),
            answer,
            _room: room,
            _lock: lock,
        };
        self.queue.send(waiting).map_err(|_| AppendError::Stopped)?;
        Ok((ticket, judged))
    }
}

impl Ticket {
    /// Withdraws the commit for this reason, unless it was sent.
    fn give_up(&self, reason: AppendError) -> AppendError {
        if self.withdraw() { reason } else { AppendError::OutcomeUnknown }
    }
}

impl Waiting {
    fn is_waited_for(&self) -> bool {
        !self.answer.is_closed()
    }
}

impl WriterTask {
    /// Records commits until every [`Writer`] is gone and the last commit is answered.
    ///
    /// Fails if an answer of Postgres cannot be understood: it is not known then what it recorded.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match progress::idle(self.queue.recv()).await {
                    Some(commit) => waiting.push_back(commit),
                    None => return Ok(()),
                }
            }
            while let Ok(commit) = self.queue.try_recv() {
                waiting.push_back(commit);
            }
            // A requester that has given up knows that its commit was not sent.
            waiting.retain(Waiting::is_waited_for);
            let batch = take_batch(&mut waiting);
            if !batch.is_empty() {
                for waiting in &batch {
                    self.numbers.wait.record(waiting.since.elapsed());
                }
                let taken = self.record(batch, Flight::new()).await?;
                refuse_taken(&mut waiting, &taken);
            }
        }
    }

    /// Records a batch, and answers for each of its commits. A batch that fails as a whole is halved,
    /// so that a bad commit fails alone and a call that takes too long becomes shorter.
    ///
    /// Returns the slugs that have an owner permanently now.
    async fn record(
        &mut self,
        mut batch: Vec<Waiting>,
        mut flight: Flight,
    ) -> anyhow::Result<HashSet<Slug>> {
        self.room.call_begins();
        let landing = self.land(&mut batch, &mut flight).await;
        self.numbers.call.record(self.room.call_ends());
        let landing = landing?;
        // To send a batch again and again is no progress. A batch that ends or becomes smaller is.
        if !matches!(landing, Landing::Withdrawn) {
            progress::tick();
        }
        match landing {
            Landing::Judged(judgements) => Ok(self.answer(batch, judgements)),
            Landing::Halved => {
                let second = batch.split_off(batch.len().div_ceil(2));
                let mut taken = HashSet::new();
                for half in [batch, second] {
                    taken.extend(Box::pin(self.record(half, flight.half())).await?);
                }
                Ok(taken)
            }
            Landing::Failed(error) => {
                tracing::error!(%error, "a commit failed");
                if let Some(waiting) = batch.pop() {
                    // The requester is gone if this fails.
                    let _ = waiting.answer.send(Err(error));
                }
                Ok(HashSet::new())
            }
            Landing::Withdrawn => Ok(HashSet::new()),
        }
    }

    /// Sends a batch until its [`Flight`] comes to an end.
    ///
    /// While the outcome of a call is unknown, the same commits are sent again with the same event ids.
    /// Only `append_events` can recognise them: a look at the event store is not enough, for the lost
    /// call may still be running. Commits that no requester waits for any more are left out.
    async fn land(
        &mut self,
        batch: &mut Vec<Waiting>,
        flight: &mut Flight,
    ) -> anyhow::Result<Landing> {
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(MAX_DELAY)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            batch.retain(Waiting::is_waited_for);
            if batch.is_empty() {
                return Ok(Landing::Withdrawn);
            }
            let link = match self.session.link().await {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!(%error, commits = batch.len(), "no append call can be sent");
                    tokio::time::sleep(delays.next().unwrap_or(MAX_DELAY)).await;
                    continue;
                }
            };
            batch.retain(|waiting| waiting.ticket.send());
            if batch.is_empty() {
                self.session.put_back(link);
                return Ok(Landing::Withdrawn);
            }
            if flight.is_unknown() {
                metrics::counter!("append_resent_total").increment(1);
            }
            flight.sends(batch.len());
            let commits: Vec<&Commit> = batch.iter().map(|waiting| &waiting.commit).collect();
            let error = match self.session.call(link, &commits).await {
                Ok(judgements) => {
                    flight.ends(CallEnd::Judged);
                    self.numbers.batch_size.record(commits.len() as f64);
                    return Ok(Landing::Judged(judgements));
                }
                Err(error) => error,
            };
            let Some(end) = error.end() else {
                return Err(anyhow::Error::new(error).context("while recording a batch"));
            };
            let state = flight.ends(end);
            tracing::warn!(%error, ?state, commits = batch.len(), "append call failed");
            if !flight.is_unknown() {
                batch.iter().for_each(|waiting| waiting.ticket.take_back());
            }
            match state {
                State::Halved => return Ok(Landing::Halved),
                State::Failed => return Ok(Landing::Failed(failure(error))),
                State::NotSent | State::OutcomeUnknown | State::InFlight | State::Judged => {}
            }
            tokio::time::sleep(delays.next().unwrap_or(MAX_DELAY)).await;
        }
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

/// Error of a commit that failed alone.
fn failure(error: CallError) -> AppendError {
    match error {
        CallError::RolledBack(Reason::Cancelled, error) => AppendError::Cancelled(error),
        CallError::RolledBack(_, error)
        | CallError::Broken(error)
        | CallError::NotUnderstood(error) => AppendError::Rejected(error),
        CallError::TimedOut => AppendError::OutcomeUnknown,
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
        let (ticket, since) = (Ticket::default(), Instant::now());
        Waiting { commit, bytes, since, ticket, answer, _room: room, _lock: None }
    }
}
