//! `projector quarantine`: pages that were set aside, for an operator to look at, to try again, or to accept
//! that an event is left out.

use std::io::{Write, sink};
use std::time::Duration;

use anyhow::{Context, bail};
use domain::{Position, PostId};
use event_log::{Entry, EventLog, Generations, PoolSettings, Reading, State};
use read_model::{KeySpace, Views};

use crate::config::{QuarantineAction, QuarantineArgs, Which};
use crate::pages::{Refolded, refold};
use crate::rebuild::followed;
use crate::retries;

/// How many entries are listed.
const MOST: u32 = 10_000;
/// How long Postgres may take to answer at all, and Redis to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Does what is asked for, and writes what there is to say of it.
pub async fn run(args: &QuarantineArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let settings = PoolSettings {
        name: "projector quarantine",
        connections: 1,
        acquire_limit: LIMIT,
        options: &[],
        for_scans: false,
    };
    let pool = event_log::pool(args.store.database_url.reveal(), settings)?;
    let store = event_log::open_within(LIMIT, &pool, |_| {}).await?;
    let followed = followed::to_follow(&Generations::new(pool.clone())).await?;
    let log = EventLog::new(pool, store.partitions);
    let keys = KeySpace::new(&args.store.redis_prefix)?;
    let views = Views::new(args.store.redis_url.reveal(), keys, store.partitions, LIMIT)?;
    // What readers see comes first, and is what there is to say something of.
    let (active, others) = match followed.split_first() {
        Some((active, others)) => (views.of_generation(*active), others),
        None => (views.clone(), &[][..]),
    };
    let last = match &args.action {
        QuarantineAction::Retry { post_id: Some(id), .. } => {
            let noted = on_record(&log, Which::Post(*id)).await?;
            noted.iter().map(|entry| entry.position).max().unwrap_or_default()
        }
        QuarantineAction::List
        | QuarantineAction::Show { .. }
        | QuarantineAction::Retry { post_id: None, .. }
        | QuarantineAction::Discard { .. } => Position::ZERO,
    };
    let outcome = act(&args.action, &log, &active, last, out).await;
    for other in others {
        // It ends there as here, but for a server that went away in between.
        let done = act(&args.action, &log, &views.of_generation(*other), last, &mut sink()).await;
        if let (Err(error), Ok(())) = (done, &outcome) {
            tracing::warn!("Generation {other} of the views is as it was: {error:#}");
        }
    }
    outcome
}

/// Does it in one generation of the views.
async fn act(
    action: &QuarantineAction,
    log: &EventLog,
    views: &Views,
    last: Position,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match action {
        QuarantineAction::List => list(log, out).await,
        QuarantineAction::Show { which } => show(log, views, *which, out).await,
        QuarantineAction::Retry { post_id: Some(id), .. } => {
            retry(log, views, *id, last, out).await
        }
        QuarantineAction::Retry { post_id: None, .. } => retry_all(log, views, out).await,
        QuarantineAction::Discard { position } => discard(log, views, *position, out).await,
    }
}

async fn list(log: &EventLog, out: &mut impl Write) -> anyhow::Result<()> {
    let entries = log.on_record(MOST).await?;
    writeln!(
        out,
        "{:>12}  {:<36}  {:<24}  {:<20}  {:<11}  reason",
        "position", "post", "type", "since", "state"
    )?;
    for Entry { position, stream_id, event_type, event_version, reason, noted_at, state } in entries
    {
        let event = format!("{event_type}.v{event_version}");
        let since = noted_at.format("%Y-%m-%dT%H:%M:%SZ");
        // A table has lines of one line each.
        let reason = reason.replace(char::is_control, " ");
        writeln!(
            out,
            "{position:>12}  {stream_id:<36}  {event:<24}  {since:<20}  {state:<11}  {reason}"
        )?;
    }
    Ok(())
}

async fn show(
    log: &EventLog,
    views: &Views,
    which: Which,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let entries = on_record(log, which).await?;
    for entry in &entries {
        let event = log.event_at(entry.position).await?.context("the log has no such event")?;
        let payload: serde_json::Value = serde_json::from_str(&event.payload.json)?;
        let shown = serde_json::json!({
            "position": event.position,
            "event_id": event.event_id,
            "stream_id": event.stream_id,
            "sequence": event.sequence,
            "recorded_at": event.recorded_at,
            "event_type": event.payload.event_type,
            "event_version": event.payload.event_version,
            "payload": payload,
        });
        writeln!(out, "{}: {}", entry.state, entry.reason)?;
        writeln!(out, "{shown:#}")?;
    }
    let Some(id) = entries.first().and_then(|entry| entry.stream_id.parse::<PostId>().ok()) else {
        return Ok(writeln!(out, "It has no page.")?);
    };
    let found = views.row(id).await.context("reading the page")?;
    match found.quarantined {
        Some(position) => writeln!(out, "The page is set aside from position {position} on.")?,
        None => writeln!(out, "The page is not set aside.")?,
    }
    let Some(row) = found.row else {
        return Ok(writeln!(out, "There is no row: the page is folded from the log when read.")?);
    };
    let position = row.position;
    match row.page {
        None => writeln!(out, "As of position {position} the post is gone.")?,
        Some(page) => {
            let page: serde_json::Value = serde_json::from_slice(&page.to_json())?;
            writeln!(out, "The page as it is served, as of position {position}:\n{page:#}")?;
        }
    }
    Ok(())
}

async fn retry_all(log: &EventLog, views: &Views, out: &mut impl Write) -> anyhow::Result<()> {
    let mut failed = 0_usize;
    for (id, noted) in retries::set_aside(log, views).await? {
        if let Err(error) = retry(log, views, id, noted, out).await {
            writeln!(out, "{error:#}")?;
            failed += 1;
        }
    }
    // What belongs to no page is only on record.
    for entry in log.on_record(MOST).await? {
        if entry.state == State::Quarantined && entry.stream_id.parse::<PostId>().is_err() {
            let stored = log.event_at(entry.position).await?.into_iter().collect();
            let read = log.read(stored).await?.pop().map(|event| event.payload);
            match read {
                Some(Reading::Unreadable(error)) => {
                    writeln!(out, "The event at position {}: {error}", entry.position)?;
                    failed += 1;
                }
                Some(Reading::Event(_) | Reading::Discarded) | None => {
                    log.release(&entry.stream_id, Position(entry.position.0 + 1)).await?;
                }
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of them stay set aside");
    }
    Ok(())
}

async fn retry(
    log: &EventLog,
    views: &Views,
    id: PostId,
    noted: Position,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match refold(log, views, id, noted).await? {
        Refolded::Released => Ok(writeln!(out, "Post {id} is as the log has it.")?),
        Refolded::StillQuarantined(end) => {
            bail!("post {id} stays set aside from position {} on: {}", end.position, end.reason)
        }
        Refolded::NotYet => bail!(
            "the views of post {id} have not come to position {noted} yet; try again when they have"
        ),
    }
}

async fn discard(
    log: &EventLog,
    views: &Views,
    position: Position,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let stream_id = log.discard(position).await?;
    let Some(stream_id) = stream_id else {
        bail!("no page is set aside for an event at position {position}");
    };
    writeln!(out, "The event at position {position} is left out from now on.")?;
    match stream_id.parse::<PostId>() {
        Ok(id) => {
            let noted = on_record(log, Which::Post(id)).await?;
            let last = noted.iter().map(|entry| entry.position).max().unwrap_or(position);
            retry(log, views, id, last, out).await
        }
        Err(_) => Ok(()),
    }
}

/// What is on record of a page, or an event: one entry at least.
async fn on_record(log: &EventLog, which: Which) -> anyhow::Result<Vec<Entry>> {
    let mut entries = log.on_record(MOST).await?;
    match which {
        Which::Post(id) => entries.retain(|entry| entry.stream_id == id.to_string()),
        Which::Event(position) => entries.retain(|entry| entry.position == position),
    }
    if entries.is_empty() {
        bail!("nothing of that is on record; see `projector quarantine list`");
    }
    Ok(entries)
}
