//! The call of `append_events`: commits as arrays, judgements as rows.

use domain::Position;
use sqlx::PgConnection;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::flight::Reason;
use super::session::CallError;
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

/// Returns what an error tells about the call.
///
/// Postgres sends an error of severity `ERROR` only before it commits. After a `FATAL` one the
/// session ends, and the call may have been committed.
pub(super) fn classify(error: sqlx::Error) -> CallError {
    if let Some(answered) = error.as_database_error() {
        let answered = answered.try_downcast_ref::<PgDatabaseError>();
        return match answered.filter(|answered| answered.severity() == PgSeverity::Error) {
            Some(answered) => CallError::RolledBack(reason(answered.code()), error),
            None => CallError::Broken(error),
        };
    }
    if matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_)) {
        CallError::Broken(error)
    } else if matches!(error, sqlx::Error::Encode(_)) {
        // Nothing was sent.
        CallError::RolledBack(Reason::BadData, error)
    } else {
        CallError::NotUnderstood(error)
    }
}

fn reason(code: &str) -> Reason {
    const CANCELLED: &str = "57014";
    const BAD_DATA: [&str; 2] = ["22", "23"];
    // Lost connections, read-only servers, deadlocks, exhausted resources, locks that were not
    // granted in time, and shutdowns.
    const PASSING: [&str; 6] = ["08", "25", "40", "53", "55", "57"];
    let is_of = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
    match code {
        CANCELLED => Reason::Cancelled,
        _ if is_of(&BAD_DATA) => Reason::BadData,
        _ if is_of(&PASSING) => Reason::Passing,
        _ => Reason::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_tells_whether_the_next_call_may_succeed() {
        for (code, expected) in [
            ("22P05", Reason::BadData),
            ("23505", Reason::BadData),
            ("57014", Reason::Cancelled),
            ("55P03", Reason::Passing),
            ("40P01", Reason::Passing),
            ("25006", Reason::Passing),
            ("53100", Reason::Passing),
            ("42883", Reason::Refused),
        ] {
            assert_eq!(reason(code), expected, "{code}");
        }
    }

    #[test]
    fn only_a_broken_connection_may_be_mended_without_an_answer() {
        let broken = classify(sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into()));
        assert!(matches!(broken, CallError::Broken(_)), "{broken:?}");
        let strange = classify(sqlx::Error::Protocol("nonsense".to_owned()));
        assert!(matches!(strange, CallError::NotUnderstood(_)), "{strange:?}");
    }
}
