//! What is written into the views goes through the guard: runs of events, and rows that were folded from the log.

use std::iter;

use domain::{Claim, Partition, Point, Position, PostId, Slug};
use futures::future::try_join_all;
use redis::Value;
use uuid::Uuid;

use crate::announcements::{Visibility, line};
use crate::connection::Exchange;
use crate::guard::Watermark;
use crate::keys::KeySpace;
use crate::lists::memberships;
use crate::markdown::render_all;
use crate::post_page::PostPage;
use crate::reading::watermark;
use crate::row::{Row, StoredRow};
use crate::{Views, ViewsError};

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

/// What the guard answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarded {
    Written,
    /// Nothing was written; the watermark is this one, or there is none.
    Refused(Option<Watermark>),
}

impl Views {
    /// Moves watermarks forward, each together with the rows that follow. All go out in one exchange; each
    /// is answered, or fails, on its own.
    pub async fn advance(
        &self,
        advances: &[Advance],
    ) -> Result<Vec<Result<Guarded, ViewsError>>, ViewsError> {
        let htmls = try_join_all(advances.iter().map(|advance| htmls(&advance.rows))).await?;
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        for (advance, html) in advances.iter().zip(htmls) {
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

    /// Offers rows that were folded from the log.
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
        let html = htmls(&fill.rows).await?;
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
        fills: impl Iterator<Item = (&'a Fill, Option<Expected>)>,
    ) -> Result<Vec<Guarded>, ViewsError> {
        let fills: Vec<_> = fills.collect();
        let htmls = try_join_all(fills.iter().map(|(fill, _)| htmls(&fill.rows))).await?;
        let keys = self.keys();
        let mut exchange = self.connection.exchange();
        let count = fills.len();
        for ((fill, expected), html) in fills.into_iter().zip(htmls) {
            self.add_fill(&mut exchange, &keys, mode, fill, html, expected)?;
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
        let told = match expected {
            // No process has copies of what is only being built.
            Some(Expected::Batch { .. }) => String::new(),
            Some(Expected::Unfilled(_)) | None => {
                let repaired = fill.rows.iter().filter(|_| mode == "repair");
                let repaired = repaired
                    .map(|(id, row)| line(*id, row.visibility(fill.incarnation), iter::empty()));
                lines_of_flags(fill.flags.iter()).chain(repaired).collect()
            }
        };
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
            .arg(told)
            .arg(flag_lines(&fill.flags));
        self.add_rows(&mut call, keys, fill.partition, &fill.rows, html, &fill.flags)?;
        exchange.call(&mark, &self.guard, &call);
        Ok(())
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
            call.key(keys.post(partition, *id))
                .arg(id.to_string())
                .arg(stored.position.0)
                .arg(stored.state());
            match stored.page {
                Some(page) => call
                    .arg(page.slug.as_ref().map_or("", Slug::as_str))
                    .arg(page.created_at.timestamp_micros())
                    .arg(&page.card[..])
                    .arg(&page.content[..])
                    .arg(html),
                None => call.arg("").arg("").arg("").arg("").arg(""),
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

/// Renders the text of each row, off the event loop.
async fn htmls(rows: &[(PostId, Row)]) -> Result<Vec<String>, ViewsError> {
    let text = |row: &Row| row.page.as_ref().map_or("", PostPage::text_to_render).to_owned();
    let texts = rows.iter().map(|(_, row)| text(row));
    render_all(texts).await.map_err(|_ended| ViewsError::Malformed("a text"))
}

/// What a move of the watermark changes: each post on a line, with the slugs that it took.
fn announcement(advance: &Advance) -> String {
    let flagged = advance.flags.iter().filter(|(_, flag)| *flag != Flag::Still);
    let rows = advance.rows.iter().map(|(id, row)| {
        let slugs = advance.slugs.iter().filter(|(_, claim)| claim.post_id == *id);
        line(*id, row.visibility(advance.incarnation), slugs.map(|(slug, _)| slug))
    });
    lines_of_flags(flagged).chain(rows).collect()
}

fn lines_of_flags<'a>(
    flags: impl Iterator<Item = &'a (PostId, Flag)>,
) -> impl Iterator<Item = String> {
    flags.map(|(id, _)| line(*id, Visibility::Unknown, iter::empty()))
}

fn flag_lines(flags: &[(PostId, Flag)]) -> String {
    flags.iter().fold(String::new(), |lines, (id, flag)| match flag {
        Flag::Quarantined(position) => format!("{lines}{id} {position}\n"),
        Flag::Still => format!("{lines}{id} ?\n"),
        Flag::Released => format!("{lines}{id} \n"),
    })
}

pub(crate) fn guarded(answer: Value) -> Result<Guarded, ViewsError> {
    if answer == Value::Int(1) {
        return Ok(Guarded::Written);
    }
    if answer == Value::Nil {
        return Ok(Guarded::Refused(None));
    }
    watermark(answer).map(Guarded::Refused)
}
