-- The permanent data: all events (history), how far each partition of the log is archived
-- (checkpoints), the count and the hash chain of each system (heads), and the entries that
-- could not be decoded (quarantine). Read models are made from history and have a schema of
-- their own: see the next migration.

-- +goose Up

-- Reads on behalf of an actor run as this role. It owns nothing, so row-level security applies
-- to it. Roles belong to the cluster: another database may create the role, or grant it to the
-- same user, at the same moment.
-- +goose StatementBegin
DO $$
BEGIN
    FOR try IN 1..20 LOOP
        BEGIN
            IF to_regrole('plugcast_reader') IS NULL THEN
                CREATE ROLE plugcast_reader NOLOGIN;
            END IF;
            BEGIN
                SET LOCAL ROLE plugcast_reader;
                RESET ROLE;
            EXCEPTION WHEN insufficient_privilege THEN
                EXECUTE format('GRANT plugcast_reader TO %I', current_user);
            END;
            RETURN;
        EXCEPTION WHEN duplicate_object OR unique_violation OR internal_error THEN
            PERFORM pg_sleep(0.05); -- another session was faster; check again
        END;
    END LOOP;
    RAISE EXCEPTION 'the role plugcast_reader cannot be created or granted: other sessions keep changing it';
END
$$;
-- +goose StatementEnd

-- guard_by_system lets the reader see only those rows of a table that belong to the systems in
-- the setting plugcast.systems: a comma-separated list, * for every system but the platform's
-- own, ** for all. Without the setting it sees nothing. The setting is read once per query, not
-- per row.
-- +goose StatementBegin
CREATE FUNCTION guard_by_system(guarded regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', guarded);
    EXECUTE format($policy$
        CREATE POLICY of_own_systems ON %s FOR SELECT TO plugcast_reader USING (
            system_id = ANY ((SELECT string_to_array(current_setting('plugcast.systems', true), ','))::text[])
            OR (SELECT current_setting('plugcast.systems', true)) = '**'
            OR ((SELECT current_setting('plugcast.systems', true)) = '*' AND system_id <> '_platform'))
        $policy$, guarded);
    EXECUTE format('GRANT SELECT ON %s TO plugcast_reader', guarded);
END
$$;
-- +goose StatementEnd

-- Texts that are compared and ordered by bytes, as the platform orders them.
CREATE DOMAIN identifier AS text COLLATE "C";

-- Fixed when the deployment is created: a system that changed its partition would have two
-- histories.
CREATE TABLE deployment (
    id         integer PRIMARY KEY DEFAULT 1 CHECK (id = 1), -- there is one row
    partitions integer NOT NULL CHECK (partitions > 0)
);

CREATE TABLE checkpoints (
    partition    integer     PRIMARY KEY,
    position_ms  bigint      NOT NULL DEFAULT 0, -- everything at or before it is in history
    position_seq bigint      NOT NULL DEFAULT 0,
    generation   bigint      NOT NULL DEFAULT 0, -- grows when read models are replaced: the owners' cached states are void
    moved_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10); -- every row changes all the time: leaves room for new versions on its page

CREATE TABLE heads (
    system_id    identifier PRIMARY KEY,
    partition    integer    NOT NULL,
    position_ms  bigint     NOT NULL, -- of the newest archived event
    position_seq bigint     NOT NULL,
    seq          bigint     NOT NULL, -- number of events
    hash         bytea      NOT NULL  -- of the newest archived event
) WITH (fillfactor = 70);

CREATE TABLE history (
    system_id      identifier  NOT NULL,
    position_ms    bigint      NOT NULL,
    position_seq   bigint      NOT NULL,
    seq            bigint      NOT NULL, -- 1, 2, 3, … within the system
    id             text        NOT NULL,
    type           identifier  NOT NULL,
    version        integer     NOT NULL,
    time           timestamptz NOT NULL, -- when it was appended, on the appender's clock
    actor          identifier  NOT NULL,
    correlation_id identifier  NOT NULL,
    causation_id   text        NOT NULL,
    device_id      identifier  NOT NULL, -- copied from data for filters; empty if the event concerns no device
    data           text        NOT NULL, -- JSON, byte for byte as it was appended: the hash covers it
    hash           bytea       NOT NULL, -- SHA-256 of the previous hash and this event
    fault          text,                 -- why data cannot be decoded, if so
    archived_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_id, position_ms, position_seq)
) PARTITION BY RANGE (position_ms);

CREATE INDEX history_device ON history (system_id, device_id, position_ms, position_seq) WHERE device_id <> '';
-- Nearly all events are device updates, which the primary key finds quickly enough.
CREATE INDEX history_type ON history (system_id, type, position_ms, position_seq) WHERE type <> 'device-update';
CREATE INDEX history_actor ON history (system_id, actor, position_ms, position_seq);
CREATE INDEX history_correlation ON history (system_id, correlation_id, position_ms, position_seq)
    WHERE correlation_id <> '';

-- Positions that no clock assigned, but that an entry with an explicit id has: the log
-- continues behind it, and so must history.
CREATE TABLE history_overflow PARTITION OF history FOR VALUES FROM (253402300800000) TO (MAXVALUE); -- the year 10000
ALTER TABLE history_overflow ENABLE ROW LEVEL SECURITY;

-- create_history_partition creates the table partition for the month of a position, if there is
-- none. It attaches a finished table, because that does not block readers and writers of other
-- months.
-- +goose StatementBegin
CREATE FUNCTION create_history_partition(at_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    home  oid       := (SELECT relnamespace FROM pg_class WHERE oid = 'history'::regclass);
    month timestamp := date_trunc('month', to_timestamp(at_ms / 1000.0) AT TIME ZONE 'UTC');
    name  text      := format('history_%s', to_char(month, 'YYYY_MM'));
BEGIN
    -- A query, because to_regclass returns what it returned before the wait for the lock.
    IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = home) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('plugcast: create_history_partition'));
    IF EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = home) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE history INCLUDING DEFAULTS)', name);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE history ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', name,
        extract(epoch FROM month AT TIME ZONE 'UTC')::bigint * 1000,
        extract(epoch FROM (month + interval '1 month') AT TIME ZONE 'UTC')::bigint * 1000);
END
$$;
-- +goose StatementEnd

-- Entries that could not be decoded, stored whole for inspection. An entry without a system is
-- only here and counts nowhere; the others are in history as well.
CREATE TABLE quarantine (
    partition      integer     NOT NULL,
    position_ms    bigint      NOT NULL,
    position_seq   bigint      NOT NULL,
    system_id      identifier,
    event_id       text        NOT NULL,
    type           identifier  NOT NULL,
    reason         text        NOT NULL,
    data           text        NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, position_ms, position_seq)
);
CREATE INDEX quarantine_system ON quarantine (system_id, position_ms, position_seq, partition);
CREATE INDEX quarantine_position ON quarantine (position_ms, position_seq, partition);

-- The number of entries that were ever put into quarantine, which every process reads all the
-- time.
CREATE TABLE quarantine_sizes (
    partition integer     PRIMARY KEY,
    entries   bigint      NOT NULL,
    oldest    timestamptz NOT NULL DEFAULT now(),
    newest    timestamptz NOT NULL DEFAULT now()
);

SELECT guard_by_system('heads');
SELECT guard_by_system('history');
SELECT guard_by_system('quarantine');
GRANT SELECT ON checkpoints TO plugcast_reader;
