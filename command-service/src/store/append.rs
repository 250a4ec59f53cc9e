//! The call of `append_events`: commits as arrays, judgements as rows.

use domain::Position;
use sqlx::PgConnection;

use super::writer::{Commit, Judged};

/// Hands commits to Postgres, which judges each on its own.
pub(super) async fn call(
    connection: &mut PgConnection,
    commits: &[&Commit],
) -> Result<Vec<Judged>, sqlx::Error> {
    let rows: Vec<Row> = bind(commits).fetch_all(connection).await?;
    if rows.len() != commits.len() {
        return Err(sqlx::Error::Protocol(format!(
            "{} commits got {} answers",
            commits.len(),
            rows.len()
        )));
    }
    rows.into_iter().map(judged).collect()
}

/// Outcome, version, position, and what is kept under the key: the hash of the request, its answer.
type Row = (String, i64, i64, Option<Vec<u8>>, Option<String>);

fn judged((outcome, version, position, hash, answer): Row) -> Result<Judged, sqlx::Error> {
    let (version, position) = (version.unsigned_abs(), Position::from_i64(position));
    match (outcome.as_str(), hash, answer) {
        ("recorded", ..) => Ok(Judged::Recorded { version, position }),
        ("done", Some(request_hash), Some(answer)) => {
            Ok(Judged::Done { version, position, request_hash, answer })
        }
        ("conflict", ..) => Ok(Judged::Conflict { version }),
        ("slug_taken", ..) => Ok(Judged::SlugTaken),
        (other, ..) => Err(sqlx::Error::Protocol(format!("append_events answered `{other}`"))),
    }
}

type Call<'q> = sqlx::query::QueryAs<
    'q,
    sqlx::Postgres,
    Row,
    <sqlx::Postgres as sqlx::Database>::Arguments<'q>,
>;

fn bind<'q>(commits: &[&'q Commit]) -> Call<'q> {
    let all = || commits.iter().copied();
    let kept = || all().map(|commit| commit.kept.as_ref());
    // Each event with its commit, the number of that counted from one, and its own within it.
    let events = || {
        (1_i32..).zip(all()).flat_map(|(number, commit)| {
            (1_i64..).zip(&commit.events).map(move |(nth, event)| (number, commit, nth, event))
        })
    };
    sqlx::query_as(
        "SELECT outcome, version, position, hash, answer
         FROM append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                            $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
    )
    .bind(all().map(|commit| commit.aggregate_type).collect::<Vec<_>>())
    .bind(all().map(|commit| commit.aggregate_id.as_str()).collect::<Vec<_>>())
    .bind(all().map(|commit| commit.version.cast_signed()).collect::<Vec<_>>())
    .bind(all().map(|commit| commit.slug.as_ref().map(domain::Slug::as_str)).collect::<Vec<_>>())
    .bind(
        all()
            .map(|commit| i32::try_from(commit.events.len()).unwrap_or(i32::MAX))
            .collect::<Vec<_>>(),
    )
    .bind(all().map(|commit| commit.uid).collect::<Vec<_>>())
    .bind(kept().map(|kept| Some(kept?.author.as_str())).collect::<Vec<_>>())
    .bind(kept().map(|kept| Some(kept?.key.as_str())).collect::<Vec<_>>())
    .bind(kept().map(|kept| Some(&kept?.request_hash[..])).collect::<Vec<_>>())
    .bind(kept().map(|kept| Some(kept?.answer.as_str())).collect::<Vec<_>>())
    .bind(events().map(|(number, ..)| number).collect::<Vec<_>>())
    .bind(events().map(|(_, commit, ..)| commit.aggregate_type).collect::<Vec<_>>())
    .bind(events().map(|(_, commit, ..)| commit.aggregate_id.as_str()).collect::<Vec<_>>())
    .bind(
        events().map(|(_, commit, nth, _)| commit.version.cast_signed() + nth).collect::<Vec<_>>(),
    )
    .bind(events().map(|(_, commit, ..)| i32::from(commit.partition)).collect::<Vec<_>>())
    .bind(events().map(|(.., event)| event.id).collect::<Vec<_>>())
    .bind(events().map(|(.., event)| event.event_type.as_str()).collect::<Vec<_>>())
    .bind(events().map(|(.., event)| event.event_version.as_str()).collect::<Vec<_>>())
    .bind(events().map(|(.., event)| event.payload.as_str()).collect::<Vec<_>>())
    .bind(events().map(|(_, commit, ..)| commit.metadata.as_str()).collect::<Vec<_>>())
}

/// Whether the call ended in SQL in a way that sending it again would not change. Then nothing of it was
/// recorded.
///
/// Bad data and broken constraints always end so. Of what else can go wrong, all but lost connections,
/// exhausted resources, shut-downs, time-outs, read-only standbys and deadlocks does; but only if this was the
/// `first` attempt. What became of an earlier one, such an error does not tell.
pub(super) fn is_final(error: &sqlx::Error, first: bool) -> bool {
    const ALWAYS: [&str; 2] = ["22", "23"];
    const PASSING: [&str; 5] = ["08", "25", "40", "53", "57"];
    let Some(code) = error.as_database_error().and_then(|error| error.code()) else {
        return false;
    };
    let of = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    of(&ALWAYS) || (first && !of(&PASSING))
}
