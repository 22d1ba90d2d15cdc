-- The credentials of connections. They are not made from history, because no event contains a
-- secret: a rebuild leaves them alone, and a backup needs them. The reader's role sees none of
-- them.

-- +goose Up

CREATE TABLE connection_secrets (
    system_id     identifier  NOT NULL,
    connection_id identifier  NOT NULL,    -- several systems may use the same id: the key of a device that dials in identifies its system
    kind          text        NOT NULL,
    key_hash      bytea,                   -- SHA-256 of the key with which devices dial in
    key_id        text,                    -- id of the secret key that encrypted sealed
    sealed        bytea,                   -- encrypted credential of a cloud account
    revision      uuid        NOT NULL DEFAULT gen_random_uuid(), -- changes with each write
    created_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_id, connection_id),
    UNIQUE (connection_id, key_hash),
    CHECK ((key_id IS NULL) = (sealed IS NULL))
);
