-- What links to servers of other kinds remember and report. It is not made from
-- history: a rebuild leaves it alone. The reader's role sees none of it, because
-- reports are for those who run the platform.

-- +goose Up

CREATE TABLE bridge_link_states (
    link       identifier  NOT NULL,
    system_id  identifier  NOT NULL,
    state      json        NOT NULL DEFAULT '{}', -- where the link goes on after a restart; texts of others are in it
    revision   bigint      NOT NULL DEFAULT 0,    -- of what is kept: grows with each run of the link
    dropped    bigint      NOT NULL DEFAULT 0,    -- findings that were dropped, because there were too many
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
