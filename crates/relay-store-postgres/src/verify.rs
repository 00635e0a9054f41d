//! Checks all queues: recorded counts must match the items, and each index must lead both ways.

use std::collections::HashMap;
use std::ops::ControlFlow;

use relay_core::verify::{Findings, InspectQueue, Names, recount_queue};
use relay_core::{ItemId, ItemStatus, Queued, Seq, Timestamp, Usage};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::convert::{item_id, seq, timestamp, unsigned, usage};
use crate::error::PostgresError;
use crate::slots::{Slots, slot};
use crate::statements::statements;

/// How many queues one statement reads.
const QUEUES: i64 = 500;

const QUEUES_AFTER: &str = "\
SELECT q, items, bytes, due, last_seq FROM queue WHERE q > $1 ORDER BY q LIMIT $2";
const ITEMS: &str = "\
SELECT seq, message_id, chunk_index, deadline, payload_bytes, octet_length(body) FROM item
WHERE q = $1 ORDER BY seq";
const ACKED: &str = "SELECT count(*) FROM acked WHERE q = $1";
const ORPHANS: &str = "\
SELECT (SELECT count(*) FROM item i WHERE NOT EXISTS (SELECT FROM queue u WHERE u.q = i.q)),
    (SELECT count(*) FROM acked a WHERE NOT EXISTS (SELECT FROM queue u WHERE u.q = a.q))";

statements! {
    /// The statements for each queue.
    QueueStatements {
        items: ITEMS,
        acked: ACKED,
    }
}

/// One queue, as it was read.
struct Queue {
    usage: Usage,
    due: Timestamp,
    items: Vec<QueuedItem>,
    by_id: HashMap<ItemId, ItemStatus>,
    acked: u64,
}

#[derive(Clone, Copy)]
struct QueuedItem {
    id: ItemId,
    seq: Seq,
    deadline: Timestamp,
    payload_bytes: u64,
}

/// Checks all queues of a database with these slots, a queue at a time.
pub(crate) async fn verify(client: &Client, slots: &Slots) -> Result<Vec<String>, PostgresError> {
    let statements = QueueStatements::prepare(client).await?;
    let (mut findings, mut number, mut after) = (Findings::default(), 0, Uuid::nil());
    loop {
        let rows = client.query(QUEUES_AFTER, &[&after, &QUEUES]).await?;
        for row in &rows {
            after = row.try_get(0)?;
            let mut queue = Queue {
                usage: usage(row.try_get(1)?, row.try_get(2)?),
                due: timestamp(row.try_get(3)?),
                items: Vec::new(),
                by_id: HashMap::new(),
                acked: 0,
            };
            let last_seq: i64 = row.try_get(4)?;
            if !slots.contains(slot(after)) {
                let slot = slot(after);
                findings.add(format!("queue {number}: its slot is {slot}, which the database does not have"));
            }
            queue.read(client, &statements, after, number, &mut findings).await?;
            if queue.items.last().is_some_and(|item| item.seq > seq(last_seq)) {
                findings.add(format!("queue {number}: an item has a higher arrival number than the queue"));
            }
            recount_queue(number, &queue, &mut findings)?;
            number += 1;
        }
        if rows.is_empty() {
            break;
        }
    }
    let orphans = client.query_one(ORPHANS, &[]).await?;
    for (index, what) in ["items", "ids of acked items"].into_iter().enumerate() {
        let count: i64 = orphans.try_get(index)?;
        if count > 0 {
            findings.add(format!("{count} {what} belong to no queue"));
        }
    }
    Ok(findings.into_listed())
}

impl Queue {
    async fn read(
        &mut self,
        client: &Client,
        statements: &QueueStatements,
        key: Uuid,
        number: u64,
        findings: &mut Findings,
    ) -> Result<(), PostgresError> {
        for row in client.query(&statements.items, &[&key]).await? {
            let item = QueuedItem {
                seq: seq(row.try_get(0)?),
                id: item_id(row.try_get(1)?, row.try_get(2)?),
                deadline: timestamp(row.try_get(3)?),
                payload_bytes: unsigned(row.try_get(4)?),
            };
            let length: i32 = row.try_get(5)?;
            if u64::try_from(length) != Ok(item.payload_bytes) {
                findings.add(format!("queue {number}: a payload has another length than recorded"));
            }
            let QueuedItem { id, seq, deadline, payload_bytes } = item;
            self.by_id.insert(id, ItemStatus::Queued { seq, deadline, payload_bytes });
            self.items.push(item);
        }
        self.acked = unsigned(client.query_one(&statements.acked, &[&key]).await?.try_get(0)?);
        Ok(())
    }
}

impl Queued for QueuedItem {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn id(&self) -> ItemId {
        self.id
    }

    fn deadline(&self) -> Timestamp {
        self.deadline
    }

    fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }
}

impl InspectQueue for Queue {
    type Error = PostgresError;
    type Item = QueuedItem;

    fn usage(&self) -> Result<Usage, PostgresError> {
        Ok(self.usage)
    }

    fn scan(&self, visit: &mut dyn FnMut(QueuedItem) -> ControlFlow<()>) -> Result<(), PostgresError> {
        for item in &self.items {
            if visit(*item).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn locate(&self, id: ItemId) -> Result<Option<ItemStatus>, PostgresError> {
        Ok(self.by_id.get(&id).copied())
    }

    fn names(&self) -> Result<Names, PostgresError> {
        Ok(Names { queued: self.by_id.len() as u64, acked: self.acked })
    }

    fn due(&self) -> Option<Timestamp> {
        (!self.items.is_empty()).then_some(self.due)
    }

    /// An empty queue has a time at which the sweep visits it, too.
    fn is_left_to_sweep(&self) -> bool {
        true
    }
}
