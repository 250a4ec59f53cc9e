//! Carries the log to Kafka: reads above the cursor, publishes in order, moves the cursor past what Kafka has
//! acknowledged without a gap.
//!
//! It runs beside the HTTP server of every process and is active in one of them at a time. It never loses an
//! event; it may send one again, and who reads the topic tells by its position.

mod lease;
mod publisher;
mod word;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use domain::{Message, Partition, Point, Position, RawEvent, Recorded};
use event_log::EventLog;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use rdkafka::producer::DeliveryFuture;
use service_runtime::progress;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use self::lease::{Held, Lease};
use self::publisher::Publisher;
pub use self::publisher::{Topic, WrongPartitions};

/// How many events are read at once.
const PAGE: u32 = 1000;
/// How many events may be on their way to Kafka.
const MAX_IN_FLIGHT: usize = 5000;
/// How often the cursor is saved.
const SAVE: Duration = Duration::from_millis(100);
/// How often a relay looks by itself for what another process has recorded, should no word of it arrive.
pub const LOOK: Duration = Duration::from_millis(100);
/// After so long without an acknowledgement, a new producer begins from the cursor.
const MAX_SILENCE: Duration = Duration::from_secs(15);

/// The relay of one process.
#[derive(Debug)]
pub struct Relay {
    log: EventLog,
    lease: Lease,
    settings: RelaySettings,
    pool: PgPool,
    recorded: Arc<Notify>,
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
}

/// One life as the active relay: what has been read, what is on its way, what has arrived.
struct Course {
    publisher: Publisher,
    /// The store's present life. Whoever raises it takes the lease away.
    incarnation: u32,
    held: Held,
    /// The last event sent in each partition, which the next one names as its `previous`.
    sent: Vec<Point>,
    read: Position,
    acknowledged: Position,
    in_flight: FuturesOrdered<Delivery>,
    /// What has been read and found no room in the producer yet.
    unsent: VecDeque<(Partition, Recorded<RawEvent>)>,
    /// The producer has no room until something is acknowledged.
    full: bool,
    /// The log may go on above what has been read.
    more: bool,
    heard: Instant,
    saved: Instant,
    published: metrics::Counter,
    delay: metrics::Histogram,
}

/// Becomes an event's position, and the time of its recording, once Kafka has it.
type Delivery = BoxFuture<'static, anyhow::Result<Delivered>>;
type Delivered = (Position, SystemTime);

impl Relay {
    /// `recorded` is rung when this process has recorded something; `pool` carries the moves of the cursor, and
    /// word from process to process.
    pub fn new(
        log: EventLog,
        pool: PgPool,
        recorded: Arc<Notify>,
        settings: RelaySettings,
    ) -> Self {
        let lease = Lease::new(pool.clone(), settings.holder.clone(), settings.lease);
        Self { log, lease, settings, pool, recorded }
    }

    /// Stands by until it gets the lease, then carries events until `stop` or until it loses it.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut topic_is_right = false;
        while !stop.is_cancelled() {
            progress::tick();
            match self.turn(&mut topic_is_right, &stop).await {
                Ok(()) => {}
                Err(error) if error.is::<WrongPartitions>() => return Err(error),
                Err(error) => {
                    let error = format!("{error:#}");
                    // No reason to turn commands away: they are recorded, and carried on later.
                    tracing::warn!(error, "The relay begins anew: {error}");
                }
            }
            self.stand_by(&stop).await;
        }
        Ok(())
    }

    /// Until it is time to ask for the lease again, tells who holds it what this process records.
    async fn stand_by(&self, stop: &CancellationToken) {
        let mut over = pin!(tokio::time::sleep(self.settings.lease / 6));
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
            // Not one of the branches, lest it be given up half-way and the word lost.
            word::send(&self.pool).await;
            tokio::time::sleep(word::PAUSE).await;
        }
    }

    async fn turn(
        &self,
        topic_is_right: &mut bool,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        if !*topic_is_right {
            self.settings.topic.ensure().await?;
            *topic_is_right = true;
        }
        if let Some(held) = self.lease.take().await.context("taking the lease")? {
            tracing::info!(cursor = %held.cursor, "Carrying the log to Kafka from position {}", held.cursor);
            metrics::gauge!("relay_active").set(1.0);
            let carried = tokio::select! {
                carried = self.carry(held, stop) => carried,
                never = word::listen(&self.pool, &self.recorded) => match never {},
            };
            metrics::gauge!("relay_active").set(0.0);
            carried?;
        }
        Ok(())
    }

    async fn carry(&self, held: Held, stop: &CancellationToken) -> anyhow::Result<()> {
        let head = self.log.head().await?;
        if held.cursor > head {
            bail!(
                "the cursor stands at {} and the log ends at {head}: the store has come back from an earlier \
                 state, run `command-service new-incarnation`",
                held.cursor
            );
        }
        let mut course = Course {
            publisher: Publisher::new(&self.settings.topic)?,
            incarnation: self.log.incarnation().await?,
            sent: self.log.points_at(held.cursor).await?,
            read: held.cursor,
            acknowledged: held.cursor,
            held,
            in_flight: FuturesOrdered::new(),
            unsent: VecDeque::new(),
            full: false,
            more: true,
            heard: Instant::now(),
            saved: Instant::now(),
            published: metrics::counter!("relay_published_total"),
            delay: metrics::histogram!("relay_delay_seconds"),
        };
        let mut save = every(SAVE);
        let mut look = every(self.settings.look);
        loop {
            // The look comes round every so often even if nothing is recorded.
            progress::tick();
            let room = course.in_flight.len() < MAX_IN_FLIGHT && !course.full;
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.finish(course).await,
                Some(delivered) = course.in_flight.next() => {
                    course.delivered(delivered?);
                    // Under load the tick saves it. A single event need not wait for that.
                    if course.in_flight.is_empty() && course.saved.elapsed() >= SAVE {
                        self.save(&mut course).await?;
                    }
                }
                _ = save.tick() => {
                    self.save(&mut course).await?;
                    course.check_silence()?;
                }
                _ = look.tick() => course.more = true,
                () = self.recorded.notified(), if !course.more => course.more = true,
                () = std::future::ready(()), if course.more && room => self.send_page(&mut course).await?,
            }
        }
    }

    /// Saves how far Kafka has acknowledged, which renews the lease.
    async fn save(&self, course: &mut Course) -> anyhow::Result<()> {
        if !self.lease.advance(&course.held, course.acknowledged).await? {
            bail!("another process has taken the lease");
        }
        course.saved = Instant::now();
        Ok(())
    }

    /// Sends off what has been read and not sent yet, or else the next page of the log.
    async fn send_page(&self, course: &mut Course) -> anyhow::Result<()> {
        if course.unsent.is_empty() {
            course.unsent = self.log.read_after(course.read, PAGE).await?.into();
            course.more = !course.unsent.is_empty();
        }
        while let Some((partition, event)) = course.unsent.pop_front() {
            if event.position.0 != course.read.0 + 1 {
                bail!("position {} follows {} in the log", event.position, course.read);
            }
            let slot = usize::from(partition.0);
            let previous = *course.sent.get(slot).context("an event of no partition of ours")?;
            let (point, incarnation) = (event.point(), course.incarnation);
            let recorded_at = event.recorded_at.into();
            let message = Message { incarnation, previous, event };
            let Some(delivery) = course.publisher.send(partition, &message)? else {
                course.unsent.push_front((partition, message.event));
                course.full = true;
                return Ok(());
            };
            if course.in_flight.is_empty() {
                course.heard = Instant::now();
            }
            course.sent[slot] = point;
            course.read = point.position;
            course.in_flight.push_back(acknowledgement(delivery, (point.position, recorded_at)));
        }
        Ok(())
    }

    /// Waits a moment for what is on its way, and gives the lease back.
    async fn finish(&self, mut course: Course) -> anyhow::Result<()> {
        let rest = async {
            while let Some(Ok((position, _))) = course.in_flight.next().await {
                course.acknowledged = position;
            }
        };
        // What does not arrive in time is sent again by the next holder.
        let _ = tokio::time::timeout(Duration::from_secs(2), rest).await;
        self.lease.give_back(&course.held, course.acknowledged).await
    }
}

impl Course {
    fn delivered(&mut self, (position, recorded_at): Delivered) {
        // The clocks of two machines may differ by more than that.
        self.delay.record(recorded_at.elapsed().unwrap_or_default());
        self.published.increment(1);
        self.acknowledged = position;
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
}

fn every(period: Duration) -> Interval {
    let mut every = tokio::time::interval(period);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    every
}

fn acknowledgement(delivery: DeliveryFuture, event: Delivered) -> Delivery {
    Box::pin(async move {
        match delivery.await.context("the producer is gone")? {
            Ok(_) => Ok(event),
            Err((error, _)) => Err(error).context("a message was not delivered"),
        }
    })
}
