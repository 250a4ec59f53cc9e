//! How fast pages are read that only the log has: nothing is in memory, and Redis is empty. No partition has
//! a watermark there, so nothing that was read is kept either.
//!
//! Each post is read once in a round, by its slug: two looks into the log. Postgres itself is warm.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::ensure;

use crate::Args;
use crate::history;
use crate::load::{self, CLIENTS, Medians};
use crate::readers::{Mistakes, Reader};
use crate::redis_server;
use crate::report::Report;
use crate::requests::address_of;
use crate::stories::Published;
use crate::system::System;

const POSTS: usize = 20_000;
/// Pages of 2 kB, like the hot one.
const TEXT_BYTES: usize = 1680;
const LIMIT_SECONDS: u32 = 120;

pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let redis = testkit::own_redis().await;
    let system = System::on_redis(redis.url()).await?;
    history::write(&system, Published::new(POSTS, TEXT_BYTES)).await?;
    let query = system.start("query-service", &[("INKSTREAM_MEMORY_MIB", "0")]).await;
    let to = address_of(&query.url())?;

    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        report.progress(&format!("GET of cold pages, round {round} of {}", args.rounds));
        // The slugs that it was asked for are remembered there, watermark or not.
        let mut connection = redis_server::connect(&redis.url()).await?;
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
        let mistakes = Arc::<Mistakes>::default();
        let reader =
            |client| Reader::new(to, (client..POSTS).step_by(CLIENTS), Arc::clone(&mistakes));
        let done = load::run(to, (0..CLIENTS).map(reader).collect(), LIMIT_SECONDS).await?;
        let [wrong, errors] =
            [&mistakes.wrong, &mistakes.errors].map(|count| count.load(Ordering::Relaxed));
        ensure!(
            done.answers == POSTS && wrong == 0 && errors == 0,
            "of {} answers {wrong} were wrong and {errors} were errors",
            done.answers
        );
        rounds.push(done);
    }
    let done = Medians::of(&rounds);
    report.heading(&format!(
        "GET /posts/{{slug}}, {POSTS} pages of 2 kB that only the log has, each once, {CLIENTS} clients, \
        medians of {} rounds",
        args.rounds
    ));
    report.figure("cold_read_per_s", "from the log", done.per_second, "reads/s");
    report.figure("cold_read_p50_ms", "from the log, median", done.p50_ms, "ms");
    report.figure("cold_read_p99_ms", "from the log, 99th percentile", done.p99_ms, "ms");
    Ok(())
}
