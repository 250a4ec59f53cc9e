-- Records many commits in one call, and judges each on its own.
--
-- A commit is one element of each `commit_…` array: the events of one decision about one aggregate, made at
-- `commit_versions` (the sequence of the last event it knew), `commit_sizes` of them. Its own id,
-- `commit_uids`, is that of its first event, where it has one. If its client gave it a key, `key_authors` and
-- the arrays beside it are filled. An event is one element of each `event_…` array, in the order of recording;
-- `event_commits` names its commit, counted from one. Two commits of one call must not name the same
-- aggregate, slug or key: the writer sees to it, and the unique indexes refuse the whole call otherwise.
--
-- A row for each commit comes back, in order, with one of these outcomes, judged in this order:
--   recorded    its events stand in the log; `version` and `position` are those of the last one. This is
--               also the outcome of a commit sent again after its answer was lost, and of one without events
--               whose version is the present one: that is a question, or a refusal that is to be kept under
--               its key, decided under the same lock.
--   done        another commit was recorded under its key: `version`, `position`, `hash` and `answer` are what
--               that one left.
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
    commit_uids      uuid[],
    key_authors      text[],
    key_names        text[],
    key_hashes       bytea[],
    key_answers      text[],
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
RETURNS TABLE (outcome text, version bigint, "position" bigint, hash bytea, answer text)
LANGUAGE plpgsql
VOLATILE
-- Every look-up here is by key. Planned once while the tables are small, a scan would stay in the plan while
-- they grow.
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    head          bigint;
    now_by_clock  timestamptz;
    last_event_at timestamptz;
    event_time    timestamptz;
    outcomes      text[];
    accepted      boolean[];
    claims        boolean[];
    versions      bigint[];
    positions     bigint[];
    hashes        bytea[];
    answers       text[];
    is_writing    boolean;
BEGIN
    -- "ink" in ASCII. Held inside the server only, never across a round trip to a client.
    PERFORM pg_advisory_xact_lock(6909547);

    SELECT last.position, last.recorded_at INTO head, last_event_at
    FROM events AS last ORDER BY last.position DESC LIMIT 1;
    head := coalesce(head, 0);
    now_by_clock := clock_timestamp();
    -- Not earlier than the event before if the clock went back a little. An event that is further ahead is
    -- not followed: one wrong clock would stop the time of all later events.
    event_time := CASE
        WHEN last_event_at <= now_by_clock + interval '1 minute' THEN greatest(now_by_clock, last_event_at)
        ELSE now_by_clock
    END;

    SELECT array_agg(CASE WHEN judged.judgement = 'again' THEN 'recorded' ELSE judged.judgement END
                     ORDER BY judged.number),
           array_agg(judged.judgement = 'recorded' ORDER BY judged.number),
           array_agg(judged.judgement = 'recorded' AND judged.slug IS NOT NULL AND judged.owner IS NULL
                     ORDER BY judged.number),
           array_agg(judged.version ORDER BY judged.number),
           array_agg(judged.position ORDER BY judged.number),
           array_agg(judged.hash ORDER BY judged.number),
           array_agg(judged.answer ORDER BY judged.number)
    INTO outcomes, accepted, claims, versions, positions, hashes, answers
    FROM (
        SELECT given.number, given.slug, owner.post_id AS owner,
               CASE
                   WHEN again.sequence IS NOT NULL OR kept.commit_uid = given.uid THEN 'again'
                   WHEN kept.commit_uid IS NOT NULL THEN 'done'
                   WHEN coalesce(last.sequence, 0) <> given.expected THEN 'conflict'
                   WHEN owner.post_id <> given.id THEN 'slug_taken'
                   ELSE 'recorded'
               END AS judgement,
               coalesce(again.sequence, kept.version, last.sequence, 0) AS version,
               coalesce(again.position, kept.position, last.position, 0) AS position,
               kept.request_hash AS hash, kept.answer::text AS answer
        FROM unnest(commit_types, commit_ids, commit_versions, commit_slugs, commit_sizes, commit_uids,
                    key_authors, key_names)
             WITH ORDINALITY AS given (type, id, expected, slug, size, uid, author, key, number)
        LEFT JOIN LATERAL (
            SELECT events.sequence, events.position FROM events
            WHERE events.aggregate_type = given.type AND events.aggregate_id = given.id
            ORDER BY events.sequence DESC LIMIT 1
        ) AS last ON true
        -- A commit stands in the log whole or not at all, so its first event speaks for it.
        LEFT JOIN LATERAL (
            SELECT ended.sequence, ended.position FROM events AS began, events AS ended
            WHERE began.aggregate_type = given.type AND began.aggregate_id = given.id
              AND began.sequence = given.expected + 1 AND began.event_id = given.uid
              AND ended.aggregate_type = given.type AND ended.aggregate_id = given.id
              AND ended.sequence = given.expected + given.size
            LIMIT 1
        ) AS again ON last.sequence > given.expected
        LEFT JOIN LATERAL (
            SELECT slugs.post_id FROM slugs WHERE slugs.slug = given.slug LIMIT 1
        ) AS owner ON given.slug IS NOT NULL
        LEFT JOIN LATERAL (
            SELECT keys.* FROM idempotency_keys AS keys
            WHERE keys.author = given.author AND keys.key = given.key LIMIT 1
        ) AS kept ON given.key IS NOT NULL
    ) AS judged;

    INSERT INTO events (
        aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
        position, partition, event_id, recorded_at
    )
    SELECT given.aggregate_type, given.aggregate_id, given.sequence, given.type, given.version,
           given.payload::jsonb, given.metadata::jsonb,
           head + row_number() OVER (ORDER BY given.number), given.partition, given.id, event_time
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
    SELECT array_agg(CASE WHEN given.adds THEN given.expected + given.size ELSE given.version END
                     ORDER BY given.number),
           array_agg(CASE WHEN given.adds THEN given.ends ELSE given.position END ORDER BY given.number),
           bool_or(given.adds OR given.accepted AND given.key IS NOT NULL)
    INTO versions, positions, is_writing
    FROM (
        SELECT each.*, each.accepted AND each.size > 0 AS adds,
               head + sum(each.size) FILTER (WHERE each.accepted) OVER (ORDER BY each.number) AS ends
        FROM unnest(accepted, versions, positions, commit_versions, commit_sizes, key_names)
             WITH ORDINALITY AS each (accepted, version, position, expected, size, key, number)
    ) AS given;

    INSERT INTO idempotency_keys (author, key, commit_uid, request_hash, answer, version, position, recorded_at)
    SELECT given.author, given.key, given.uid, given.hash, given.answer::jsonb, given.version, given.position,
           now_by_clock
    FROM unnest(accepted, key_authors, key_names, commit_uids, key_hashes, key_answers, versions, positions)
         AS given (accepted, author, key, uid, hash, answer, version, position)
    WHERE given.accepted AND given.key IS NOT NULL;

    -- A call that writes nothing does not wait for its commit. If it acknowledges what an earlier call left, an
    -- empty message in the WAL makes it wait: that call may have been cut off before the standby had its commit.
    IF NOT is_writing AND outcomes && ARRAY['recorded', 'done'] THEN
        PERFORM pg_logical_emit_message(true, 'inkstream', '');
    END IF;

    RETURN QUERY
    SELECT given.outcome, given.version, given.position, given.hash, given.answer
    FROM unnest(outcomes, versions, positions, hashes, answers)
         WITH ORDINALITY AS given (outcome, version, position, hash, answer, number)
    ORDER BY given.number;
END
$$;
