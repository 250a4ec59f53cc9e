-- The state of aggregates at a version, so that loading one does not read its whole stream.
--
-- A cache: each row can be computed again from `events`, and may be deleted at any time.
CREATE TABLE aggregate_snapshots (
    aggregate_type text             NOT NULL,
    aggregate_id   text COLLATE "C" NOT NULL,
    -- The sequence of the last event applied, and the id of that event. A reader ignores a snapshot whose
    -- event the stream does not have: a restore of the database may have removed it.
    version        bigint           NOT NULL CHECK (version > 0),
    event_id       uuid             NOT NULL,
    -- Names the serialised form. A program ignores snapshots of another shape than its own.
    shape          text             NOT NULL,
    state          jsonb            NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
);
