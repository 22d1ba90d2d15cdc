-- The state and the reports of links to servers of other kinds. They are not made from history:
-- a rebuild leaves them alone. The reader's role sees none of them, because reports are for
-- operators of the platform.

-- +goose Up

CREATE TABLE bridge_link_states (
    link       identifier  NOT NULL,
    system_id  identifier  NOT NULL,
    state      json        NOT NULL DEFAULT '{}', -- where the link continues after a restart; contains texts of other servers
    revision   bigint      NOT NULL DEFAULT 0,    -- of the state: grows when another process takes the link over
    dropped    bigint      NOT NULL DEFAULT 0,    -- number of findings that were dropped, because there were too many
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (link, system_id)
) WITH (fillfactor = 50); -- changed once a second

CREATE TABLE bridge_counts (
    link      identifier NOT NULL,
    system_id identifier NOT NULL,
    kind      identifier NOT NULL,
    count     bigint     NOT NULL,
    PRIMARY KEY (link, system_id, kind),
    FOREIGN KEY (link, system_id) REFERENCES bridge_link_states (link, system_id) ON DELETE CASCADE
) WITH (fillfactor = 50);

CREATE TABLE bridge_findings (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    link      identifier  NOT NULL,
    system_id identifier  NOT NULL,
    at        timestamptz NOT NULL,
    document  json        NOT NULL,
    FOREIGN KEY (link, system_id) REFERENCES bridge_link_states (link, system_id) ON DELETE CASCADE
);
CREATE INDEX bridge_findings_link ON bridge_findings (link, system_id, id);
