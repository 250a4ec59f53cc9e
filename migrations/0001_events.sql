-- The log of events. Everything else in the system can be made anew from it.

-- The columns up to `metadata` are those of postgres-es. The others have no default, so that whoever
-- writes an event past `append_events` fails loudly instead of leaving one that nobody will ever see.
CREATE TABLE events (
    aggregate_type text             NOT NULL,
    -- Bytewise order makes all ids with one prefix (a post, and what hangs on it) a range.
    aggregate_id   text COLLATE "C" NOT NULL,
    sequence       bigint           NOT NULL CHECK (sequence > 0),
    event_type     text             NOT NULL,
    event_version  text             NOT NULL,
    payload        jsonb            NOT NULL,
    metadata       jsonb            NOT NULL,
    -- 1, 2, 3 … over the whole store, without a hole, in commit order.
    position       bigint           NOT NULL CHECK (position > 0),
    partition      integer          NOT NULL,
    -- Made by the writer, so that it knows its own events again after an answer was lost.
    event_id       uuid             NOT NULL,
    recorded_at    timestamptz      NOT NULL,
    -- Size of the payload as text. A read adds the sizes up and ends in time, before it touches any text.
    payload_bytes  integer          NOT NULL GENERATED ALWAYS AS (octet_length(payload::text)) STORED,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
);

CREATE UNIQUE INDEX events_position ON events (position);
CREATE UNIQUE INDEX events_partition_position ON events (partition, position);

-- What a slug names, for ever: a slug is never given to another post, whatever becomes of its own.
CREATE TABLE slugs (
    slug    text COLLATE "C" PRIMARY KEY,
    post_id text COLLATE "C" NOT NULL
);

-- The settings of the store, which every process checks when it starts. One row.
CREATE TABLE store (
    one         boolean  PRIMARY KEY DEFAULT true CHECK (one),
    partitions  integer  NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    -- The store's life since it last came back from an earlier state. A position means something only
    -- together with it.
    incarnation integer  NOT NULL DEFAULT 1,
    -- Key of the store's consistency tokens: random, and another one with each incarnation. A version 4 UUID
    -- has 122 random bits.
    token_key   bytea    NOT NULL DEFAULT sha256(convert_to(
                    gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
                CHECK (octet_length(token_key) = 32)
);

-- How far the log has been carried to Kafka, and who may carry it. One row.
CREATE TABLE relay (
    one        boolean     PRIMARY KEY DEFAULT true CHECK (one),
    cursor     bigint      NOT NULL DEFAULT 0,
    -- Grows with each holder. Whoever moves the cursor names its own, so one that lost the lease without
    -- noticing moves nothing.
    token      bigint      NOT NULL DEFAULT 0,
    holder     text        NOT NULL DEFAULT '',
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);

INSERT INTO relay DEFAULT VALUES;

-- The outbox is the part of the log above the cursor: no copies, nothing to delete.
CREATE VIEW outbox AS
SELECT * FROM events WHERE position > (SELECT cursor FROM relay);
