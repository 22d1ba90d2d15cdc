-- Bridges between deployments: the identity of this deployment, the deployment where an event
-- was first appended, and how far the logs of others were imported.

-- +goose Up

-- The id of the deployment where the event was first appended; empty for this one.
ALTER TABLE history ADD COLUMN origin identifier NOT NULL DEFAULT '';

-- An event that arrives by two routes is identified by its origin and its id.
CREATE INDEX history_foreign ON history (system_id, id) WHERE origin <> '';

-- Created at the first start and never changed: other deployments know our events by it.
CREATE TABLE deployment_identity (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton), -- there is one row
    id  uuid NOT NULL DEFAULT gen_random_uuid()
);

-- Everything up to the position in the log of the source is in history. Redis has a later
-- cursor; import starts again from this one if Redis lost its own.
CREATE TABLE bridge_cursors (
    system_id    identifier  NOT NULL,
    source       identifier  NOT NULL, -- the id of the deployment whose log it is
    position_ms  bigint      NOT NULL,
    position_seq bigint      NOT NULL,
    saved_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_id, source)
);
