-- Commands that can be repeated: what became of one is kept under the key its client gave it.

CREATE TABLE idempotency_keys (
    author       text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    -- The commit that brought it, so that one sent again after its answer was lost is not taken for another.
    commit_uid   uuid             NOT NULL,
    -- What the request was, so that another one under the same key is noticed.
    request_hash bytea            NOT NULL,
    -- How it was answered; the service that answers reads it.
    answer       jsonb            NOT NULL,
    version      bigint           NOT NULL,
    position     bigint           NOT NULL,
    recorded_at  timestamptz      NOT NULL,
    PRIMARY KEY (author, key)
);

-- For removing the oldest.
CREATE INDEX idempotency_keys_recorded_at ON idempotency_keys (recorded_at);
