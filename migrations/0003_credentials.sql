-- What lets sockets of connections in, and which device came in through which.
-- It is not made from history, because no event has a secret in it: a rebuild
-- leaves it alone, and a backup needs it. The reader's role sees none of it.

-- +goose Up

CREATE TABLE connection_secrets (
    connection_id identifier  PRIMARY KEY, -- unique across systems: devices that dial in name no system
    system_id     identifier  NOT NULL,
    kind          text        NOT NULL,
    key_hash      bytea,                   -- SHA-256 of the key that devices dial in with
    key_id        text,                    -- which secret key sealed has been encrypted with
    sealed        bytea,                   -- what a cloud account is reached with
    revision      uuid        NOT NULL DEFAULT gen_random_uuid(), -- another at each change
    created_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (connection_id, system_id),
    CHECK ((key_id IS NULL) = (sealed IS NULL))
);

-- A device belongs to the system that it was first seen in for as long as the
-- connection it came through exists: its own word is all that a device is known by.
CREATE TABLE device_bindings (
    device_id     identifier  PRIMARY KEY,
    system_id     identifier  NOT NULL,
    connection_id identifier  NOT NULL,
    bound_at      timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (connection_id, system_id) REFERENCES connection_secrets (connection_id, system_id) ON DELETE CASCADE
);
CREATE INDEX device_bindings_connection ON device_bindings (connection_id, system_id);
