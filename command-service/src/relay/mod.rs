//! Carries the log to Kafka: reads above the cursor, publishes in order, moves the cursor past what Kafka has
//! acknowledged without a gap.
//!
//! It runs beside the HTTP server of every process and is active in one of them at a time. It never loses an
//! event; it may send one again, and a reader of the topic tells by its position. Nothing that Kafka or the topic
//! lacks ends it: a round that fails is followed by another, after an exponential back-off. An event that Kafka
//! rejects is published as a stub ([`Message::stub`]).

mod health;
mod lease;
mod publisher;
mod topic;
mod word;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail};
use domain::{Message, Partition, Point, Position, RawEvent, Recorded};
use event_log::EventLog;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::DeliveryFuture;
use service_runtime::progress;
use sqlx::PgPool;
use tokio::sync::{Notify, watch};
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use self::health::Rejected;
pub use self::health::{RelayHealth, STANDSTILL_LIMIT};
use self::lease::{Held, Lease};
use self::publisher::{Publisher, Sent, is_rejection};
use self::topic::TopicState;
pub use self::topic::{TooFewPartitions, Topic, default_min_in_sync};

/// How many events are read at once.
const PAGE: u32 = 1000;
/// How many events may be on their way to Kafka.
const MAX_IN_FLIGHT: usize = 5000;
/// How often the cursor is saved while it moves.
const SAVE: Duration = Duration::from_millis(100);
/// How often a relay looks by itself for what another process has recorded, should no word of it arrive.
pub const LOOK: Duration = Duration::from_millis(100);
/// After so long without an acknowledgement, a new producer begins from the cursor.
const MAX_SILENCE: Duration = Duration::from_secs(15);
/// Interval of checks of the topic.
pub const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a failed round. It doubles with each round that makes no progress.
const MIN_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// Time that deliveries get to tell why a round fails.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// The relay of one process.
#[derive(Debug)]
pub struct Relay {
    log: EventLog,
    lease: Lease,
    settings: RelaySettings,
    pool: PgPool,
    recorded: Arc<Notify>,
    health: RelayHealth,
}

/// What a relay needs to know.
#[derive(Debug)]
pub struct RelaySettings {
    pub topic: Topic,
    /// Who we are, for people who look at the lease.
    pub holder: String,
    pub lease: Duration,
    /// [`LOOK`], unless a test wants to know who told it.
    pub look: Duration,
    /// [`TOPIC_CHECK_INTERVAL`], unless a test is in a hurry.
    pub topic_check: Duration,
}

/// State that a process keeps from one round to the next.
#[derive(Debug, Default)]
struct Experience {
    /// The topic as it was found, and when.
    topic: Option<(TopicState, Instant)>,
    /// Number of failed rounds since the cursor last moved.
    failures: u32,
    /// Up to here messages go one at a time, since Kafka did not take one of them. So it shows which, and a
    /// failed round repeats no other.
    alone_up_to: Position,
    /// The event that Kafka rejects when sent alone, and that goes as a stub.
    rejected: Option<Position>,
}

/// One life as the active relay: what has been read, what is on its way, what has arrived.
struct Course {
    publisher: Publisher,
    topic: TopicState,
    /// The store's present life. An operator who raises it takes the lease away.
    incarnation: u32,
    /// The last event sent in each partition, which the next one names as its `previous`.
    sent: Vec<Point>,
    read: Position,
    acknowledged: Position,
    in_flight: FuturesOrdered<BoxFuture<'static, anyhow::Result<Delivered>>>,
    /// Slow start: how many events may be on their way; one more with each that arrives.
    window: usize,
    /// What has been read and found no room in the producer yet.
    unsent: VecDeque<(Partition, Recorded<RawEvent>)>,
    /// The producer has no room until something is acknowledged.
    full: bool,
    /// The log may go on above what has been read.
    more: bool,
    heard: Instant,
    /// The cursor as it was last saved, and when.
    saved: (Position, Instant),
    published: metrics::Counter,
    delay: metrics::Histogram,
}

/// An event that Kafka has acknowledged.
struct Delivered {
    position: Position,
    recorded_at: SystemTime,
    /// Size of a payload that was left out.
    left_out: Option<usize>,
}

/// An event that Kafka has not taken.
#[derive(Debug, thiserror::Error)]
#[error("Kafka did not take the event at position {position} ({bytes} bytes): {code}")]
struct Undelivered {
    position: Position,
    bytes: usize,
    code: RDKafkaErrorCode,
}

/// The topic as the active relay's checks find it, or why the round ends.
type Seen = Result<TopicState, String>;

impl Relay {
    /// `recorded` is rung when this process has recorded something; `pool` carries the moves of the cursor, and
    /// word from process to process.
    pub fn new(
        log: EventLog,
        pool: PgPool,
        recorded: Arc<Notify>,
        health: RelayHealth,
        settings: RelaySettings,
    ) -> Self {
        let lease = Lease::new(pool.clone(), settings.holder.clone(), settings.lease);
        Self { log, lease, settings, pool, recorded, health }
    }

    /// Stands by until it gets the lease, then carries events until `stop` or until it loses it.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut experience = Experience::default();
        while !stop.is_cancelled() {
            progress::tick();
            let pause = match self.turn(&mut experience, &stop).await {
                Ok(()) => self.settings.lease / 6,
                Err(error) => {
                    let error = format!("{error:#}");
                    // No reason to refuse commands: they are recorded, and published later.
                    tracing::warn!(error, "relay round failed");
                    self.health.failed(error);
                    experience.pause_after_failure()
                }
            };
            self.stand_by(pause, &stop).await;
        }
        Ok(())
    }

    /// For so long, tells the holder of the lease what this process records.
    async fn stand_by(&self, pause: Duration, stop: &CancellationToken) {
        let mut over = pin!(tokio::time::sleep(pause));
        loop {
            let news = progress::idle(async {
                tokio::select! {
                    () = stop.cancelled() => false,
                    () = &mut over => false,
                    () = self.recorded.notified() => true,
                }
            });
            if !news.await {
                return;
            }
            // Not one of the branches: given up half-way, the word would be lost.
            word::send(&self.pool).await;
            tokio::time::sleep(word::PAUSE).await;
        }
    }

    async fn turn(
        &self,
        experience: &mut Experience,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        // Without Kafka it takes seconds.
        let Some(topic) = stop.run_until_cancelled(self.check_topic(experience)).await else {
            return Ok(());
        };
        let topic = topic?;
        progress::tick();
        let Some(held) = self.lease.take().await.context("taking the lease")? else {
            return Ok(());
        };
        tracing::info!(cursor = %held.cursor, "Carrying the log to Kafka from position {}", held.cursor);
        metrics::gauge!("relay_active").set(1.0);
        let (seen, topic) = watch::channel(Ok(topic));
        let mut reached = held.cursor;
        let carried = tokio::select! {
            carried = self.carry(&held, &mut reached, experience, topic, stop) => carried,
            never = word::listen(&self.pool, &self.recorded) => match never {},
            never = self.watch_topic(&seen) => match never {},
        };
        metrics::gauge!("relay_active").set(0.0);
        progress::tick();
        // After an error, too: another process may succeed at once, and the next round need not wait.
        let given_back = self.lease.give_back(&held, reached).await;
        carried.and(given_back.context("giving the lease back"))
    }

    /// Returns the topic's state, checked lately.
    async fn check_topic(&self, experience: &mut Experience) -> anyhow::Result<TopicState> {
        if let Some((state, at)) = &experience.topic
            && at.elapsed() < self.settings.topic_check
        {
            return Ok(state.clone());
        }
        experience.topic = None;
        let state = self.ensure_topic().await?;
        experience.topic = Some((state.clone(), Instant::now()));
        Ok(state)
    }

    async fn ensure_topic(&self) -> anyhow::Result<TopicState> {
        let ensured = self.settings.topic.ensure().await;
        match &ensured {
            Ok(state) => self.health.topic_is(state),
            Err(error) if error.is::<TooFewPartitions>() => {
                self.health.topic_cannot_be_used(format!("{error:#}"));
            }
            // Nothing is known of the topic.
            Err(_) => {}
        }
        ensured
    }

    /// Checks the topic from time to time while events are carried.
    async fn watch_topic(&self, seen: &watch::Sender<Seen>) -> Infallible {
        loop {
            tokio::time::sleep(self.settings.topic_check).await;
            let found = match self.ensure_topic().await {
                // A producer that knew the topic before it was deleted may not find it again.
                Ok(state) if state.created => {
                    Err("the topic was missing and is created again".into())
                }
                Ok(state) => Ok(state),
                Err(error) if error.is::<TooFewPartitions>() => Err(format!("{error:#}")),
                Err(error) => {
                    tracing::debug!("The topic cannot be checked: {error:#}");
                    continue;
                }
            };
            seen.send_if_modified(|seen| {
                let is_new = *seen != found;
                *seen = found;
                is_new
            });
        }
    }

    async fn carry(
        &self,
        held: &Held,
        reached: &mut Position,
        experience: &mut Experience,
        topic: watch::Receiver<Seen>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut course = self.begin(held, &topic).await?;
        let carried = self.proceed(held, &mut course, experience, topic, stop).await;
        let carried = match carried {
            Ok(()) => Ok(()),
            Err(error) => Err(course.reason(error).await),
        };
        *reached = course.acknowledged;
        if *reached > held.cursor {
            experience.failures = 0;
        }
        if let Some(undelivered) = carried.as_ref().err().and_then(|error| error.downcast_ref()) {
            experience.learn(undelivered, course.read);
        }
        carried
    }

    async fn begin(&self, held: &Held, topic: &watch::Receiver<Seen>) -> anyhow::Result<Course> {
        let head = self.log.head().await?;
        if held.cursor > head {
            bail!(
                "the cursor stands at {} and the log ends at {head}: the store has come back from an earlier \
                 state, run `command-service new-incarnation`",
                held.cursor
            );
        }
        let topic = topic.borrow().clone().map_err(|why| anyhow!(why))?;
        progress::tick();
        let incarnation = self.log.incarnation().await?;
        progress::tick();
        let sent = self.log.points_at(held.cursor).await?;
        progress::tick();
        Ok(Course {
            publisher: Publisher::new(&self.settings.topic, topic.max_message_bytes)?,
            topic,
            incarnation,
            sent,
            read: held.cursor,
            acknowledged: held.cursor,
            in_flight: FuturesOrdered::new(),
            window: 1,
            unsent: VecDeque::new(),
            full: false,
            more: true,
            heard: Instant::now(),
            saved: (held.cursor, Instant::now()),
            published: metrics::counter!("relay_published_total"),
            delay: metrics::histogram!("relay_delay_seconds"),
        })
    }

    async fn proceed(
        &self,
        held: &Held,
        course: &mut Course,
        experience: &Experience,
        mut topic: watch::Receiver<Seen>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut save = every(SAVE);
        let mut look = every(self.settings.look);
        loop {
            // The look comes round every so often even if nothing is recorded.
            progress::tick();
            let is_outdated = !course.publisher.fits(course.topic.max_message_bytes);
            if is_outdated && course.in_flight.is_empty() {
                course.publisher =
                    Publisher::new(&self.settings.topic, course.topic.max_message_bytes)?;
                course.full = false;
                continue;
            }
            let room = course.in_flight.len() < course.window(experience) && !course.full;
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    course.finish().await;
                    return Ok(());
                }
                Some(delivered) = course.in_flight.next() => {
                    self.delivered(course, &delivered?);
                    // Under load the tick saves it. A single event need not wait for that.
                    if course.in_flight.is_empty() && course.saved.1.elapsed() >= SAVE {
                        self.save(held, course).await?;
                    }
                }
                _ = save.tick() => {
                    self.save(held, course).await?;
                    course.check_silence()?;
                }
                Ok(()) = topic.changed() => {
                    course.topic = topic.borrow_and_update().clone().map_err(|why| anyhow!(why))?;
                }
                _ = look.tick() => course.more = true,
                () = self.recorded.notified(), if !course.more => course.more = true,
                () = std::future::ready(()), if course.more && room && !is_outdated => {
                    self.send_more(course, experience).await?;
                }
            }
        }
    }

    /// Saves how far Kafka has acknowledged, if that has changed; and renews the lease in time.
    async fn save(&self, held: &Held, course: &mut Course) -> anyhow::Result<()> {
        let (cursor, at) = course.saved;
        if cursor == course.acknowledged && at.elapsed() < self.settings.lease / 3 {
            return Ok(());
        }
        if !self.lease.advance(held, course.acknowledged).await? {
            bail!("another process has taken the lease");
        }
        course.saved = (course.acknowledged, Instant::now());
        Ok(())
    }

    /// Sends what has been read and not sent yet, or else the next page of the log, as far as there is room.
    async fn send_more(&self, course: &mut Course, experience: &Experience) -> anyhow::Result<()> {
        if course.unsent.is_empty() {
            course.unsent = self.log.read_after(course.read, PAGE).await?.into();
            course.more = !course.unsent.is_empty();
        }
        while course.in_flight.len() < course.window(experience) {
            let Some((partition, event)) = course.unsent.pop_front() else { break };
            if event.position.0 != course.read.0 + 1 {
                bail!("position {} follows {} in the log", event.position, course.read);
            }
            let slot = usize::from(partition.0);
            let previous = *course.sent.get(slot).context("an event of no partition of ours")?;
            let (point, incarnation) = (event.point(), course.incarnation);
            let (bytes, recorded_at) = (event.payload.json.len(), event.recorded_at.into());
            let message = Message { incarnation, previous, event };
            let (sent, is_stub) =
                course.publish(partition, &message, experience.rejected == Some(point.position))?;
            let Some(delivery) = sent else {
                course.unsent.push_front((partition, message.event));
                course.full = true;
                return Ok(());
            };
            if course.in_flight.is_empty() {
                course.heard = Instant::now();
            }
            course.sent[slot] = point;
            course.read = point.position;
            let left_out = is_stub.then_some(bytes);
            let delivered = Delivered { position: point.position, recorded_at, left_out };
            course.in_flight.push_back(acknowledgement(delivery, bytes, delivered));
        }
        Ok(())
    }

    fn delivered(&self, course: &mut Course, delivered: &Delivered) {
        let position = delivered.position;
        if let Some(bytes) = delivered.left_out {
            let limit = course.topic.max_message_bytes;
            let rejected = Rejected { position, bytes, limit };
            tracing::warn!(%position, bytes, limit, "event published without its payload");
            metrics::counter!("relay_stubs_total").increment(1);
            self.health.published_stub(rejected);
        }
        course.acknowledge(delivered);
    }
}

impl Experience {
    /// Takes note of a failed round, and returns how long to wait before the next.
    fn pause_after_failure(&mut self) -> Duration {
        // The reason may lie in the topic.
        self.topic = None;
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(10);
        (MIN_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE)
    }

    /// Draws the conclusion from an event that Kafka has not taken, while all up to `sent` were on their way.
    fn learn(&mut self, undelivered: &Undelivered, sent: Position) {
        let Undelivered { position, code, .. } = *undelivered;
        let was_alone = position <= self.alone_up_to;
        // If not even the stub was taken, it is not for the payload.
        let was_stub = self.rejected == Some(position);
        let is_rejected = was_alone && !was_stub && is_rejection(code);
        self.rejected = is_rejected.then_some(position);
        self.alone_up_to = self.alone_up_to.max(sent);
    }
}

impl Course {
    /// How many events may be on their way at present.
    fn window(&self, experience: &Experience) -> usize {
        if self.acknowledged < experience.alone_up_to { 1 } else { self.window }
    }

    /// Hands a message to the producer, or its stub if Kafka would reject it. Returns whether it was the stub,
    /// and no delivery if there is no room.
    fn publish(
        &self,
        partition: Partition,
        message: &Message,
        is_rejected: bool,
    ) -> anyhow::Result<(Option<DeliveryFuture>, bool)> {
        if !is_rejected {
            match self.publisher.send(partition, message)? {
                Sent::Yes(delivery) => return Ok((Some(delivery), false)),
                Sent::Full => return Ok((None, false)),
                Sent::TooLong => {}
            }
        }
        match self.publisher.send(partition, &message.clone().stub())? {
            Sent::Yes(delivery) => Ok((Some(delivery), true)),
            Sent::Full => Ok((None, true)),
            Sent::TooLong => {
                bail!("the topic takes not even the headers of position {}", message.event.position)
            }
        }
    }

    fn acknowledge(&mut self, delivered: &Delivered) {
        // The clocks of two machines may differ by more than that.
        self.delay.record(delivered.recorded_at.elapsed().unwrap_or_default());
        self.published.increment(1);
        self.acknowledged = delivered.position;
        self.window = (self.window + 1).min(MAX_IN_FLIGHT);
        self.heard = Instant::now();
        self.full = false;
    }

    fn check_silence(&self) -> anyhow::Result<()> {
        let waiting = !self.in_flight.is_empty() || self.full;
        if waiting && self.heard.elapsed() > MAX_SILENCE {
            bail!("Kafka has acknowledged nothing for {} s", MAX_SILENCE.as_secs());
        }
        Ok(())
    }

    /// Waits a moment for what is on its way.
    async fn finish(&mut self) {
        let rest = async {
            while let Some(Ok(delivered)) = self.in_flight.next().await {
                self.acknowledge(&delivered);
            }
        };
        // What does not arrive in time is sent again by the next holder.
        let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
    }

    /// Returns why a round failed: the first event that was not delivered, if there is one. The producer may refuse
    /// further messages before that is known.
    async fn reason(&mut self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Undelivered>() {
            return error;
        }
        let first = async {
            loop {
                match self.in_flight.next().await? {
                    Ok(delivered) => self.acknowledge(&delivered),
                    Err(error) => return Some(error),
                }
            }
        };
        let first = tokio::time::timeout(REASON_TIMEOUT, first).await;
        first.ok().flatten().unwrap_or(error)
    }
}

fn every(period: Duration) -> Interval {
    let mut every = tokio::time::interval(period);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    every
}

fn acknowledgement(
    delivery: DeliveryFuture,
    bytes: usize,
    event: Delivered,
) -> BoxFuture<'static, anyhow::Result<Delivered>> {
    Box::pin(async move {
        match delivery.await.context("the producer is gone")? {
            Ok(_) => Ok(event),
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(code) => Err(Undelivered { position: event.position, bytes, code }.into()),
                None => Err(error).context("a message was not delivered"),
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undelivered(position: u64, code: RDKafkaErrorCode) -> Undelivered {
        Undelivered { position: Position(position), bytes: 9, code }
    }

    #[test]
    fn an_event_is_rejected_only_if_it_was_sent_alone() {
        let mut experience = Experience::default();
        experience.learn(&undelivered(3, RDKafkaErrorCode::InvalidRecord), Position(8));
        assert_eq!((experience.rejected, experience.alone_up_to), (None, Position(8)));
        experience.learn(&undelivered(5, RDKafkaErrorCode::InvalidRecord), Position(5));
        assert_eq!((experience.rejected, experience.alone_up_to), (Some(Position(5)), Position(8)));
        // Its stub has no better luck.
        experience.learn(&undelivered(5, RDKafkaErrorCode::InvalidRecord), Position(5));
        assert_eq!(experience.rejected, None);
    }

    #[test]
    fn what_may_end_by_itself_makes_no_stub() {
        let mut experience = Experience::default();
        for _ in 0..3 {
            experience
                .learn(&undelivered(3, RDKafkaErrorCode::TopicAuthorizationFailed), Position(3));
            assert_eq!(experience.rejected, None);
        }
    }

    #[test]
    fn rounds_that_fail_at_one_cursor_come_at_growing_intervals_up_to_a_limit() {
        let mut experience = Experience::default();
        let pauses: Vec<_> = (0..20).map(|_| experience.pause_after_failure()).collect();
        assert_eq!(pauses[0], MIN_PAUSE);
        assert_eq!(pauses[2], MIN_PAUSE * 4);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[19], MAX_PAUSE);
    }
}
