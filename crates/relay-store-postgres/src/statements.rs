//! The statements of the store, prepared once for each connection. All look rows up by index.

/// The database's time in milliseconds, or the one that is given.
macro_rules! now_or {
    ($parameter:literal) => {
        concat!(
            "coalesce(",
            $parameter,
            "::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
        )
    };
}

/// Locks the queues in the order of their keys, so that no two transactions wait for each other.
const LOCK_QUEUES: &str = "\
SELECT q, recipient, items, bytes, last_seq, due FROM queue WHERE q = ANY ($1::uuid[])
ORDER BY q FOR UPDATE";

/// Which of these queues another transaction has locked. It waits for none.
const LOCKED_QUEUES: &str = "\
SELECT q FROM queue WHERE q = ANY ($1::uuid[])
EXCEPT SELECT q FROM (SELECT q FROM queue WHERE q = ANY ($1::uuid[]) FOR UPDATE SKIP LOCKED) f";

/// The items with these ids, and the digests of the payloads that a push is to be compared with:
/// only of those of the same length, so that nobody can have more hashed than they send.
const FIND_ITEMS: &str = "\
SELECT k.n, i.seq, i.deadline, i.payload_bytes, i.ticket,
    CASE WHEN k.length = i.payload_bytes THEN sha256(i.body) END
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
    WITH ORDINALITY AS k (q, message_id, chunk_index, length, n)
JOIN item i ON i.q = k.q AND i.message_id = k.message_id AND i.chunk_index = k.chunk_index";

const FIND_ACKED: &str = "\
SELECT k.n, a.until, a.ticket
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) WITH ORDINALITY AS k (q, message_id, chunk_index, n)
JOIN acked a ON a.q = k.q AND a.message_id = k.message_id AND a.chunk_index = k.chunk_index";

/// The items and bytes that have expired in queue `u` at `t.now`.
macro_rules! expired {
    () => {
        "SELECT count(*) AS items, coalesce(sum(e.payload_bytes), 0)::bigint AS bytes FROM item e
        WHERE u.due <= t.now AND u.items > 0 AND e.q = u.q AND e.deadline <= t.now"
    };
}

/// The time, whether the server waits for a standby, the floor for new queues, the slots of this
/// database, and what has expired in the queues in which something can have. Most queues end at
/// `due`. It comes behind the locks, so the floor is above queues that a sweep forgot while this
/// waited for them, and the slots stay: see `assign.rs`.
const EXPIRED: &str = concat!(
    "WITH t AS MATERIALIZED (SELECT ",
    now_or!("$2"),
    " AS now)
SELECT t.now, current_setting('synchronous_standby_names') <> '', (SELECT seq_floor FROM meta),
    (SELECT slots FROM meta), e.q, e.items, e.bytes
FROM t LEFT JOIN LATERAL (
    SELECT u.q, x.items, x.bytes FROM queue u CROSS JOIN LATERAL (",
    expired!(),
    ") x WHERE u.q = ANY ($1::uuid[])
) e ON true"
);

/// The items up to one, those that live and those that have expired; what an earlier attempt has
/// acked; the time; and what has expired in the whole queue.
const COUNT_THROUGH: &str = concat!(
    "WITH t AS MATERIALIZED (SELECT ",
    now_or!("$3"),
    " AS now),
u AS MATERIALIZED (SELECT * FROM queue WHERE q = $1)
SELECT c.live_items, c.live_bytes, c.items - c.live_items, c.bytes - c.live_bytes,
    CASE WHEN $4::bigint IS NULL THEN 0 ELSE (SELECT count(*) FROM acked WHERE q = $1 AND ticket = $4) END, t.now, coalesce(x.items, 0), coalesce(x.bytes, 0)
FROM t CROSS JOIN LATERAL (
    SELECT count(*) AS items, coalesce(sum(payload_bytes), 0)::bigint AS bytes,
        count(*) FILTER (WHERE deadline > t.now) AS live_items,
        coalesce(sum(payload_bytes) FILTER (WHERE deadline > t.now), 0)::bigint AS live_bytes
    FROM item WHERE q = $1 AND seq <= $2) c
LEFT JOIN u ON true LEFT JOIN LATERAL (",
    expired!(),
    ") x ON true"
);

/// Whether the server waits for a standby.
const HAS_STANDBY: &str = "SELECT current_setting('synchronous_standby_names') <> ''";

const REMOVE: &str = "\
DELETE FROM item i USING unnest($1::uuid[], $2::bigint[]) AS n (q, seq) WHERE i.q = n.q AND i.seq = n.seq";

/// Removes all items up to one, and remembers the ids of those that live, if a time is given.
const REMOVE_THROUGH: &str = "\
WITH gone AS (DELETE FROM item WHERE q = $1 AND seq <= $2 RETURNING message_id, chunk_index, deadline)
INSERT INTO acked (q, message_id, chunk_index, until, ticket)
SELECT $1, message_id, chunk_index, $4::bigint, $5::bigint FROM gone
WHERE deadline > $3::bigint AND $4::bigint IS NOT NULL
ON CONFLICT (q, message_id, chunk_index) DO UPDATE SET until = excluded.until, ticket = excluded.ticket";

const INSERT: &str = "\
INSERT INTO item (q, seq, message_id, chunk_index, chunk_count, kind, total_len, sent_ms, arrival,
    deadline, payload_bytes, ticket, body)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bytea[],
    $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
    $13::bytea[])";

const FORGET: &str = "\
DELETE FROM acked a USING unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS n (q, message_id, chunk_index)
WHERE a.q = n.q AND a.message_id = n.message_id AND a.chunk_index = n.chunk_index";

const REMEMBER: &str = "\
INSERT INTO acked (q, message_id, chunk_index, until, ticket)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
ON CONFLICT (q, message_id, chunk_index) DO UPDATE SET until = excluded.until, ticket = excluded.ticket";

/// Creates queues in the order of their keys. It fails if another transaction has created one.
const CREATE_QUEUES: &str = "\
INSERT INTO queue (q, recipient, items, bytes, last_seq, due)
SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS n (q, recipient, items, bytes, last_seq, due)
ORDER BY n.q";

const UPDATE_QUEUES: &str = "\
UPDATE queue u SET items = n.items, bytes = n.bytes, last_seq = n.last_seq, due = n.due
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    AS n (q, items, bytes, last_seq, due)
WHERE u.q = n.q";

/// A page: at most `$3` items after `$2` that live, with the payloads of the first ones that
/// together have at most `$4` bytes, or of one. Beside each, the counts of the queue: for a page at
/// its front (`$6`), what has expired; for another one, how many live items follow what was read,
/// up to 10,000. Those in front are fewer, if the client acks what it has got.
const READ_PAGE: &str = concat!(
    "WITH t AS MATERIALIZED (SELECT ",
    now_or!("$5"),
    " AS now),
u AS MATERIALIZED (SELECT * FROM queue WHERE q = $1),
page AS MATERIALIZED (
    SELECT i.*, sum(i.payload_bytes) OVER (ORDER BY i.seq) AS through_bytes
    FROM (SELECT item.* FROM t, item WHERE q = $1 AND seq > $2 AND deadline > t.now ORDER BY seq LIMIT $3::bigint) i),
counts AS MATERIALIZED (
    SELECT x.items, x.bytes, CASE
        WHEN $6::bool OR (SELECT count(*) FROM page) < $3::bigint THEN 0
        WHEN u.due > t.now AND b.before < 5000 THEN u.items - b.before - $3::bigint
        ELSE (SELECT count(*) FROM (
            SELECT FROM item WHERE q = $1 AND seq > (SELECT max(seq) FROM page) AND deadline > t.now
            ORDER BY seq LIMIT 10000) r)
    END AS behind
    FROM t CROSS JOIN u LEFT JOIN LATERAL (",
    expired!(),
    " AND $6::bool) x ON true LEFT JOIN LATERAL (
        SELECT count(*) AS before FROM (SELECT FROM item WHERE NOT $6::bool AND q = $1 AND seq <= $2 LIMIT 5000) l
    ) b ON true)
SELECT t.now, u.recipient, u.items, u.bytes, coalesce(c.items, 0), coalesce(c.bytes, 0), c.behind,
    p.seq, p.message_id, p.chunk_index, p.chunk_count, p.kind, p.total_len, p.sent_ms, p.arrival,
    p.deadline, p.payload_bytes,
    CASE WHEN p.through_bytes <= $4::bigint OR p.through_bytes = p.payload_bytes THEN p.body END
FROM t LEFT JOIN u ON true LEFT JOIN counts c ON true LEFT JOIN page p ON true ORDER BY p.seq"
);

/// Makes a set of statements that are prepared together.
macro_rules! statements {
    ($(#[$doc:meta])* $set:ident { $($name:ident: $text:ident,)* }) => {
        $(#[$doc])*
        pub(crate) struct $set {
            $(pub(crate) $name: tokio_postgres::Statement,)*
        }

        impl $set {
            /// Prepares all of them in one round trip.
            pub(crate) async fn prepare(
                client: &tokio_postgres::Client,
            ) -> Result<Self, $crate::error::PostgresError> {
                let ($($name,)*) = tokio::try_join!($(client.prepare($text),)*)?;
                Ok(Self { $($name,)* })
            }
        }
    };
}
pub(crate) use statements;

statements! {
    /// The statements of one connection.
    Statements {
        lock_queues: LOCK_QUEUES,
        locked_queues: LOCKED_QUEUES,
        find_items: FIND_ITEMS,
        find_acked: FIND_ACKED,
        expired: EXPIRED,
        count_through: COUNT_THROUGH,
        remove: REMOVE,
        remove_through: REMOVE_THROUGH,
        insert: INSERT,
        forget: FORGET,
        remember: REMEMBER,
        create_queues: CREATE_QUEUES,
        update_queues: UPDATE_QUEUES,
        read_page: READ_PAGE,
        has_standby: HAS_STANDBY,
    }
}
