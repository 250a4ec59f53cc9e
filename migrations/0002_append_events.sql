-- Records many commits in one call, and judges each on its own.
--
-- A commit is one element of each `commit_…` array: the events of one decision about one aggregate, made at
-- `commit_versions` (the sequence of the last event it knew), `commit_sizes` of them, the first of which has
-- the id `commit_first_ids`. An event is one element of each `event_…` array, in the order of recording;
-- `event_commits` names its commit, counted from one. Two commits of one call must not name the same
-- aggregate or the same slug: the writer sees to it, and the unique indexes refuse the whole call otherwise.
--
-- A row for each commit comes back, in order, with one of these outcomes, judged in this order:
--   recorded    its events stand in the log; `version` and `position` are those of the last one. This is
--               also the outcome of a commit sent again after its answer was lost, and of one without events
--               whose version is the present one: that is a question, answered under the same lock.
--   conflict    the stream is at another version: `version` and `position` are those of its last event.
--   slug_taken  its slug belongs to another post.
-- One that is refused leaves nothing and harms no other.
--
-- VOLATILE plpgsql under READ COMMITTED, so that each statement has a snapshot of its own: the head must be
-- read by a statement that begins after the lock is held. In one statement with the lock, the snapshot would
-- be older than the wait, and the positions given would be taken already.
--
-- No ON CONFLICT on `events`, which would tear a commit in two; no sequence, which leaves a hole when a
-- transaction is rolled back. No join: with a plan made once for arrays of unknown length, one between them
-- would compare each with each.
CREATE FUNCTION append_events(
    commit_types     text[],
    commit_ids       text[],
    commit_versions  bigint[],
    commit_slugs     text[],
    commit_sizes     integer[],
    commit_first_ids uuid[],
    event_commits    integer[],
    event_aggregate_types text[],
    event_aggregate_ids   text[],
    event_sequences  bigint[],
    event_partitions integer[],
    event_ids        uuid[],
    event_types      text[],
    event_versions   text[],
    event_payloads   text[],
    event_metadata   text[]
)
RETURNS TABLE (outcome text, version bigint, "position" bigint)
LANGUAGE plpgsql
VOLATILE
-- Every look-up here is by key. Planned once while the tables are small, a scan would stay in the plan while
-- they grow.
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    head        bigint;
    now_by_us   timestamptz;
    outcomes    text[];
    accepted    boolean[];
    claims      boolean[];
    versions    bigint[];
    positions   bigint[];
BEGIN
    -- "ink" in ASCII. Held inside the server only, never across a round trip to a client.
    PERFORM pg_advisory_xact_lock(6909547);

    SELECT last.position, last.recorded_at INTO head, now_by_us
    FROM events AS last ORDER BY last.position DESC LIMIT 1;
    head := coalesce(head, 0);
    -- Never earlier than the event before, whatever was done to the clock.
    now_by_us := greatest(clock_timestamp(), now_by_us);

    SELECT array_agg(CASE WHEN judged.judgement = 'again' THEN 'recorded' ELSE judged.judgement END
                     ORDER BY judged.number),
           array_agg(judged.judgement = 'recorded' ORDER BY judged.number),
           array_agg(judged.judgement = 'recorded' AND judged.slug IS NOT NULL AND judged.owner IS NULL
                     ORDER BY judged.number),
           array_agg(judged.version ORDER BY judged.number),
           array_agg(judged.position ORDER BY judged.number)
    INTO outcomes, accepted, claims, versions, positions
    FROM (
        SELECT given.number, given.slug, owner.post_id AS owner,
               CASE
                   WHEN again.sequence IS NOT NULL THEN 'again'
                   WHEN coalesce(last.sequence, 0) <> given.expected THEN 'conflict'
                   WHEN owner.post_id <> given.id THEN 'slug_taken'
                   ELSE 'recorded'
               END AS judgement,
               coalesce(again.sequence, last.sequence, 0) AS version,
               coalesce(again.position, last.position, 0) AS position
        FROM unnest(commit_types, commit_ids, commit_versions, commit_slugs, commit_sizes, commit_first_ids)
             WITH ORDINALITY AS given (type, id, expected, slug, size, first_id, number)
        LEFT JOIN LATERAL (
            SELECT events.sequence, events.position FROM events
            WHERE events.aggregate_type = given.type AND events.aggregate_id = given.id
            ORDER BY events.sequence DESC LIMIT 1
        ) AS last ON true
        -- A commit stands in the log whole or not at all, so its first event speaks for it.
        LEFT JOIN LATERAL (
            SELECT ended.sequence, ended.position FROM events AS began, events AS ended
            WHERE began.aggregate_type = given.type AND began.aggregate_id = given.id
              AND began.sequence = given.expected + 1 AND began.event_id = given.first_id
              AND ended.aggregate_type = given.type AND ended.aggregate_id = given.id
              AND ended.sequence = given.expected + given.size
            LIMIT 1
        ) AS again ON last.sequence > given.expected
        LEFT JOIN LATERAL (
            SELECT slugs.post_id FROM slugs WHERE slugs.slug = given.slug LIMIT 1
        ) AS owner ON given.slug IS NOT NULL
    ) AS judged;

    INSERT INTO events (
        aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
        position, partition, event_id, recorded_at
    )
    SELECT given.aggregate_type, given.aggregate_id, given.sequence, given.type, given.version,
           given.payload::jsonb, given.metadata::jsonb,
           head + row_number() OVER (ORDER BY given.number), given.partition, given.id, now_by_us
    FROM unnest(event_commits, event_aggregate_types, event_aggregate_ids, event_sequences, event_partitions,
                event_ids, event_types, event_versions, event_payloads, event_metadata)
         WITH ORDINALITY AS given (commit_number, aggregate_type, aggregate_id, sequence, partition, id, type,
                                   version, payload, metadata, number)
    WHERE accepted[given.commit_number];

    INSERT INTO slugs (slug, post_id)
    SELECT given.slug, given.id
    FROM unnest(commit_slugs, commit_ids, claims) AS given (slug, id, claims)
    WHERE given.claims;

    -- The events of the accepted commits stand in their order, so a running sum of the sizes tells where
    -- each commit ends.
    RETURN QUERY
    SELECT given.outcome,
           CASE WHEN given.adds THEN given.expected + given.size ELSE given.version END,
           CASE WHEN given.adds
                THEN head + sum(given.size) FILTER (WHERE given.adds) OVER (ORDER BY given.number)
                ELSE given.position
           END::bigint
    FROM (
        SELECT each.*, each.accepted AND each.size > 0 AS adds
        FROM unnest(outcomes, accepted, versions, positions, commit_versions, commit_sizes)
             WITH ORDINALITY AS each (outcome, accepted, version, position, expected, size, number)
    ) AS given
    ORDER BY given.number;
END
$$;
