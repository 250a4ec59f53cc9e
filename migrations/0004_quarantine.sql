-- Pages that were set aside, each by an event of it that the projector cannot fold. Written before the views
-- are flagged, so that nothing is set aside without a trace.

CREATE TABLE quarantine (
    position       bigint           PRIMARY KEY,
    partition      integer          NOT NULL,
    aggregate_type text             NOT NULL,
    aggregate_id   text COLLATE "C" NOT NULL,
    sequence       bigint           NOT NULL,
    event_type     text             NOT NULL,
    event_version  text             NOT NULL,
    -- Why it cannot be folded.
    reason         text             NOT NULL,
    noted_at       timestamptz      NOT NULL DEFAULT now(),
    -- `quarantined` until the page can be folded again, when the row is removed; or `discarded` for good by
    -- an operator: every fold leaves the event out from then on.
    state          text             NOT NULL DEFAULT 'quarantined'
                                    CHECK (state IN ('quarantined', 'discarded')),
    discarded_at   timestamptz,
    CHECK ((state = 'discarded') = (discarded_at IS NOT NULL))
);

CREATE INDEX quarantine_aggregate_id ON quarantine (aggregate_id);
