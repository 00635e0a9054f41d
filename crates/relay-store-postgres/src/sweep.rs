//! Deletes what has expired, in short transactions. Every relay may sweep at any time: each skips
//! the queues that others have locked, so there is no leader.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_core::{Swept, Timestamp, Usage};
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::convert::{ms, seq_time, signed, timestamp, usage};
use crate::error::PostgresError;
use crate::shared::Shared;
use crate::statements::statements;

/// The most that one transaction visits and deletes.
const QUEUES: i64 = 200;
const ITEMS: i64 = 2_000;
const ACKED: i64 = 5_000;

/// When a queue is visited again whose ids of acked items are forgotten at once.
const ACKED_PAUSE_MS: u64 = 60_000;

/// A queue is kept as long after its last arrival. A transaction that found no queue creates it
/// within that time with a number above the floor, and none that was higher may be forgotten
/// meanwhile.
const CREATION_MS: u64 = 60_000;

/// How far the database's clock may be ahead of this machine's. A sweep by a wrong clock would
/// delete everything.
const CLOCK_AHEAD_MAX_MS: u64 = 60 * 60 * 1000;

const STEP_TIMEOUT: Duration = Duration::from_secs(30);

const LOCK_DUE: &str = "\
SELECT q, items, bytes, last_seq FROM queue WHERE due <= $1 ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED";

/// At most `$3` expired items of each queue.
const DELETE_EXPIRED: &str = "\
DELETE FROM item i USING unnest($1::uuid[]) AS k (q) CROSS JOIN LATERAL (
    SELECT seq FROM item WHERE q = k.q AND deadline <= $2 ORDER BY deadline LIMIT $3
) x WHERE i.q = k.q AND i.seq = x.seq RETURNING i.q, i.payload_bytes";

const FORGET_ACKED: &str = "\
DELETE FROM acked WHERE (q, message_id, chunk_index) IN (
    SELECT q, message_id, chunk_index FROM acked WHERE until <= $1 ORDER BY until LIMIT $2
    FOR UPDATE SKIP LOCKED)";

/// The first deadline of each queue, and whether it has ids of acked items.
const NEXT_DUE: &str = "\
SELECT k.q, (SELECT deadline FROM item WHERE q = k.q ORDER BY deadline LIMIT 1),
    EXISTS (SELECT FROM acked WHERE q = k.q)
FROM unnest($1::uuid[]) AS k (q)";

const UPDATE: &str = "\
UPDATE queue u SET items = n.items, bytes = n.bytes, due = n.due
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) AS n (q, items, bytes, due) WHERE u.q = n.q";

const FORGET_QUEUES: &str = "DELETE FROM queue WHERE q = ANY ($1::uuid[])";

const RAISE_FLOOR: &str = "UPDATE meta SET seq_floor = greatest(seq_floor, $1)";

const NOW: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

statements! {
    /// The statements of a sweep, which may take many steps.
    SweepStatements {
        lock_due: LOCK_DUE,
        delete_expired: DELETE_EXPIRED,
        forget_acked: FORGET_ACKED,
        next_due: NEXT_DUE,
        update: UPDATE,
        forget_queues: FORGET_QUEUES,
        raise_floor: RAISE_FLOOR,
        now: NOW,
    }
}

/// What one transaction did.
struct Step {
    swept: Swept,
    more: bool,
}

/// A queue that is visited.
struct Visited {
    usage: Usage,
    last_seq: i64,
}

/// Sweeps until nothing is left.
pub(crate) async fn sweep(shared: &Shared) -> Result<Swept, PostgresError> {
    let client = shared.connector.connect().await?.client;
    let preparing = timeout(STEP_TIMEOUT, SweepStatements::prepare(&client));
    let statements = preparing.await.unwrap_or(Err(PostgresError::Timeout))?;
    let mut swept = Swept::default();
    loop {
        if shared.health.unavailable().is_some() {
            return Err(PostgresError::Timeout);
        }
        let step = timeout(STEP_TIMEOUT, step(shared, &client, &statements))
            .await
            .unwrap_or(Err(PostgresError::Timeout))?;
        swept = swept.plus(step.swept);
        if !step.more {
            return Ok(swept);
        }
    }
}

async fn step(shared: &Shared, client: &Client, statements: &SweepStatements) -> Result<Step, PostgresError> {
    client.batch_execute("BEGIN").await?;
    let now = match shared.clock.given() {
        Some(now) => now,
        None => timestamp(client.query_one(&statements.now, &[]).await?.try_get(0)?),
    };
    if let Some(wall) = shared.clock.machine()
        && now > wall.plus_ms(CLOCK_AHEAD_MAX_MS)
    {
        tracing::warn!(
            "the database's clock is more than an hour ahead of this machine's; nothing is swept until they agree"
        );
        client.batch_execute("ROLLBACK").await?;
        return Ok(Step { swept: Swept::default(), more: false });
    }
    let mut visited = BTreeMap::new();
    for row in client.query(&statements.lock_due, &[&ms(now), &QUEUES]).await? {
        let usage = usage(row.try_get(1)?, row.try_get(2)?);
        visited.insert(row.try_get::<_, Uuid>(0)?, Visited { usage, last_seq: row.try_get(3)? });
    }
    let is_full = visited.len() as u64 >= QUEUES.unsigned_abs();
    let keys: Vec<Uuid> = visited.keys().copied().collect();
    // Of many queues, a part of each, so that no transaction is long.
    let each = (ITEMS / signed(keys.len().max(1) as u64)).max(20);
    let mut items = 0;
    for row in client.query(&statements.delete_expired, &[&keys, &ms(now), &each]).await? {
        let (key, payload_bytes): (Uuid, i64) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(queue) = visited.get_mut(&key) {
            queue.usage = queue.usage.minus(Usage::of(payload_bytes.unsigned_abs()));
            items += 1;
        }
    }
    let forgotten = client.execute(&statements.forget_acked, &[&ms(now), &ACKED]).await?;
    let has_more = finish(shared, client, statements, &visited, &keys, now).await?;
    client.batch_execute("COMMIT").await?;
    let more = is_full || has_more || forgotten >= ACKED.unsigned_abs();
    Ok(Step { swept: Swept { items, forgotten }, more })
}

/// Records what is left of the queues, and forgets those of which nothing is. Returns whether some
/// still have expired items.
async fn finish(
    shared: &Shared,
    client: &Client,
    statements: &SweepStatements,
    visited: &BTreeMap<Uuid, Visited>,
    keys: &[Uuid],
    now: Timestamp,
) -> Result<bool, PostgresError> {
    let (mut kept, mut items, mut bytes, mut dues) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // By then all ids of now are forgotten.
    let window_ms = shared.rules.limits.load().dedup_window_ms;
    let forgotten = now.plus_ms(window_ms.max(ACKED_PAUSE_MS));
    let (mut gone, mut floor, mut has_more) = (Vec::new(), 0, false);
    for row in client.query(&statements.next_due, &[&keys]).await? {
        let key: Uuid = row.try_get(0)?;
        let (deadline, has_acked): (Option<i64>, bool) = (row.try_get(1)?, row.try_get(2)?);
        let Some(queue) = visited.get(&key) else { continue };
        has_more |= deadline.is_some_and(|deadline| deadline <= ms(now));
        let recent = seq_time(queue.last_seq).plus_ms(CREATION_MS);
        let kept_for = [has_acked.then_some(ms(forgotten)), (recent > now).then_some(ms(recent))];
        match deadline.or(kept_for.into_iter().flatten().max()) {
            Some(due) => {
                kept.push(key);
                items.push(signed(queue.usage.items));
                bytes.push(signed(queue.usage.bytes));
                dues.push(due);
            }
            None => {
                floor = floor.max(queue.last_seq);
                gone.push(key);
            }
        }
    }
    client.execute(&statements.update, &[&kept, &items, &bytes, &dues]).await?;
    if !gone.is_empty() {
        client.execute(&statements.raise_floor, &[&floor]).await?;
        client.execute(&statements.forget_queues, &[&gone]).await?;
    }
    Ok(has_more)
}
