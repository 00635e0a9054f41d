-- The first schema. See docs/scale-out.md.

CREATE TABLE meta (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- The schema of these tables, and the oldest one whose relays may still use them.
    schema_version integer NOT NULL,
    compatible_from integer NOT NULL,
    -- Identifies the key that the relays share. NULL until the first relay has started.
    key_id bytea,
    -- Whether recipients are keyed hashes.
    is_hashed boolean,
    -- No queue that was ever forgotten has had a higher arrival number.
    seq_floor bigint NOT NULL DEFAULT 0
);
INSERT INTO meta (schema_version, compatible_from) VALUES (1, 1);

-- One row for each queue. Each transaction that changes a queue locks its row first.
CREATE TABLE queue (
    -- The first 16 bytes of the BLAKE3 hash of the recipient.
    q uuid PRIMARY KEY,
    -- bytea, because text cannot hold U+0000.
    recipient bytea NOT NULL,
    -- Its items and their payload bytes, with expired ones that the sweep has not deleted yet.
    items bigint NOT NULL,
    bytes bigint NOT NULL,
    last_seq bigint NOT NULL,
    -- When the sweep visits the queue next: no later than its first deadline. Of an empty queue,
    -- when it may be forgotten.
    due bigint NOT NULL
) WITH (
    -- Space for new versions of a row on the same page, without new entries in the indexes.
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX queue_due ON queue (due);

-- Times are milliseconds since 1970. Numbers of 64 bits without a sign are stored with their bits.
CREATE TABLE item (
    q uuid NOT NULL,
    seq bigint NOT NULL,
    message_id uuid NOT NULL,
    chunk_index bigint NOT NULL,
    chunk_count bigint NOT NULL,
    kind bytea NOT NULL,
    total_len bigint NOT NULL,
    sent_ms bigint NOT NULL,
    arrival bigint NOT NULL,
    deadline bigint NOT NULL,
    payload_bytes bigint NOT NULL,
    -- Tells the attempts of one push from other pushes of the same item.
    ticket bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (q, seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
-- Ciphertext does not shrink.
ALTER TABLE item ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX item_id ON item (q, message_id, chunk_index);
-- What has expired in a queue is a range of this index, wherever it lies in the queue.
CREATE INDEX item_deadline ON item (q, deadline) INCLUDE (payload_bytes);

-- The ids of acked items. A push of one is a duplicate until then.
CREATE TABLE acked (
    q uuid NOT NULL,
    message_id uuid NOT NULL,
    chunk_index bigint NOT NULL,
    until bigint NOT NULL,
    ticket bigint NOT NULL,
    PRIMARY KEY (q, message_id, chunk_index)
) WITH (
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX acked_until ON acked (until);
