-- Read models: the fold of history. All of them can be dropped and rebuilt. A document is the
-- exact JSON form of the row that the platform decodes. No query looks into a document, because
-- Postgres refuses to as soon as any text in it has an escaped NUL. Every value that queries
-- filter or order by has its own column.

-- +goose Up

-- create_read_models creates a schema with empty read models, owned by the caller. The live
-- ones are in the schema projection; a rebuild creates the next ones beside them with the same
-- function.
-- +goose StatementBegin
CREATE FUNCTION create_read_models(schema text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    read_model text;
BEGIN
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', schema);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO plugcast_reader', schema);
    EXECUTE format($table$
        CREATE TABLE %I.devices (
            system_id    identifier  NOT NULL,
            device_id    identifier  NOT NULL,
            online       boolean,              -- null means unknown
            relay_on     boolean,              -- null means unknown
            connection_id identifier,          -- of the last update; null means unknown
            updated_at   timestamptz NOT NULL,
            position_ms  bigint      NOT NULL, -- position of the last event that changed it
            position_seq bigint      NOT NULL,
            document     json        NOT NULL, -- all but the attributes
            attributes   text,                 -- the publisher's JSON, byte for byte
            PRIMARY KEY (system_id, device_id)
        ) WITH (fillfactor = 70)
        $table$, schema);
    EXECUTE format($table$
        CREATE TABLE %I.equipment (
            system_id    identifier  NOT NULL,
            equipment_id identifier  NOT NULL,
            retired      boolean     NOT NULL,
            updated_at   timestamptz NOT NULL,
            position_ms  bigint      NOT NULL,
            position_seq bigint      NOT NULL,
            document     json        NOT NULL,
            attributes   text,
            PRIMARY KEY (system_id, equipment_id)
        )
        $table$, schema);
    EXECUTE format($table$
        CREATE TABLE %I.assignments (
            system_id    identifier  NOT NULL,
            device_id    identifier  NOT NULL,
            equipment_id identifier  NOT NULL,
            assigned_by  text        NOT NULL,
            assigned_at  timestamptz NOT NULL,
            position_ms  bigint      NOT NULL,
            position_seq bigint      NOT NULL,
            PRIMARY KEY (system_id, device_id)
        )
        $table$, schema);
    EXECUTE format($table$
        CREATE TABLE %I.connections (
            system_id     identifier  NOT NULL,
            connection_id identifier  NOT NULL,
            stopped       boolean     NOT NULL, -- by command
            updated_at    timestamptz NOT NULL,
            position_ms   bigint      NOT NULL,
            position_seq  bigint      NOT NULL,
            document      json        NOT NULL,
            PRIMARY KEY (system_id, connection_id)
        )
        $table$, schema);
    EXECUTE format('CREATE INDEX ON %I.connections (connection_id)', schema);
    EXECUTE format('CREATE INDEX ON %I.devices (system_id, connection_id)', schema);
    EXECUTE format('CREATE INDEX ON %I.assignments (system_id, equipment_id)', schema); -- finds the plug that feeds a piece of equipment
    FOREACH read_model IN ARRAY ARRAY['devices', 'equipment', 'assignments', 'connections'] LOOP
        PERFORM guard_by_system(format('%I.%I', schema, read_model)::regclass);
    END LOOP;
END
$$;
-- +goose StatementEnd

SELECT create_read_models('projection');
