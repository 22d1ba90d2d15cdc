-- What lets sockets of connections in. It is not made from history, because no event has a secret in it: a rebuild
-- leaves it alone, and a backup needs it. The reader's role sees none of it.

-- +goose Up

CREATE TABLE connection_secrets (
    system_id     identifier  NOT NULL,
    connection_id identifier  NOT NULL,    -- several systems may use the same: a device that dials in is told apart by its key
    kind          text        NOT NULL,
    key_hash      bytea,                   -- SHA-256 of the key that devices dial in with
    key_id        text,                    -- which secret key sealed has been encrypted with
    sealed        bytea,                   -- what a cloud account is reached with
    revision      uuid        NOT NULL DEFAULT gen_random_uuid(), -- another at each change
    created_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_id, connection_id),
    UNIQUE (connection_id, key_hash),
    CHECK ((key_id IS NULL) = (sealed IS NULL))
);
