//! The second round trip: what the rules changed, as arrays of columns.

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::connect::Connection;
use crate::convert::{message_uuid, ms, seq_number, signed};
use crate::error::PostgresError;
use crate::image::{Image, NewItem, QueueImage, QueueRow, Through};

/// All changes of a transaction.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    now: i64,
    removed: Removed,
    inserted: Inserted<'a>,
    forgotten: Ids,
    remembered: RememberedIds,
    created: Created<'a>,
    updated: Queues,
    through: Option<(Uuid, Through)>,
}

#[derive(Default)]
struct Removed {
    queue: Vec<Uuid>,
    seq: Vec<i64>,
}

#[derive(Default)]
struct Ids {
    queue: Vec<Uuid>,
    message: Vec<Uuid>,
    chunk: Vec<i64>,
}

#[derive(Default)]
struct RememberedIds {
    ids: Ids,
    until: Vec<i64>,
    ticket: Vec<i64>,
}

#[derive(Default)]
struct Inserted<'a> {
    ids: Ids,
    seq: Vec<i64>,
    chunk_count: Vec<i64>,
    kind: Vec<&'a [u8]>,
    total_len: Vec<i64>,
    sent_ms: Vec<i64>,
    arrival: Vec<i64>,
    deadline: Vec<i64>,
    payload_bytes: Vec<i64>,
    ticket: Vec<i64>,
    body: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Created<'a> {
    recipient: Vec<&'a [u8]>,
    queues: Queues,
}

#[derive(Default)]
struct Queues {
    queue: Vec<Uuid>,
    items: Vec<i64>,
    bytes: Vec<i64>,
    last_seq: Vec<i64>,
    due: Vec<i64>,
}

impl<'a> Changes<'a> {
    pub(crate) fn of(image: &'a Image) -> Self {
        let mut changes = Self { now: ms(image.now), ..Self::default() };
        for (key, queue) in image.queues.iter().filter(|(_, queue)| queue.is_changed) {
            changes.add(*key, queue);
        }
        changes
    }

    fn add(&mut self, key: Uuid, queue: &'a QueueImage) {
        for seq in &queue.removed {
            self.removed.queue.push(key);
            self.removed.seq.push(seq_number(*seq));
        }
        queue.inserted.iter().for_each(|new| self.inserted.add(key, new));
        for id in &queue.forgotten {
            self.forgotten.add(key, message_uuid(id.message_id), id.chunk_index);
        }
        for remembered in &queue.remembered {
            let id = remembered.id;
            self.remembered.ids.add(key, message_uuid(id.message_id), id.chunk_index);
            self.remembered.until.push(ms(remembered.until));
            self.remembered.ticket.push(remembered.ticket);
        }
        if let Some(through) = queue.through {
            self.through = Some((key, through));
        }
        match &queue.created_for {
            Some(recipient) => {
                self.created.recipient.push(recipient.as_bytes());
                self.created.queues.add(key, &queue.row);
            }
            None => self.updated.add(key, &queue.row),
        }
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.created.queues.queue.is_empty() && self.updated.queue.is_empty()
    }

    /// Sends all statements that have something to do, at once and in order.
    pub(crate) async fn write(&self, connection: &Connection) -> Result<(), PostgresError> {
        let statements = &connection.statements;
        let Self { now, removed, inserted, forgotten, remembered, created, updated, through } = self;
        let (through_queue, through_seq, until, ticket) = match through {
            Some((queue, through)) => {
                (Some(*queue), seq_number(through.seq), through.until.map(ms), through.ticket)
            }
            None => (None, 0, None, 0),
        };
        let through_parameters: [&(dyn ToSql + Sync); 5] =
            [&through_queue, &through_seq, now, &until, &ticket];
        tokio::try_join!(
            biased;
            removed.run(connection),
            run(connection, &statements.remove_through, through_queue.as_slice(), &through_parameters),
            inserted.run(connection),
            forgotten.run(connection),
            remembered.run(connection),
            updated.run(connection),
            // Last: others may wait for a queue that this creates, and bodies take time to send.
            created.run(connection),
        )?;
        Ok(())
    }
}

/// Runs a statement, unless it has no rows.
async fn run(
    connection: &Connection,
    statement: &Statement,
    rows: &[Uuid],
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<(), PostgresError> {
    if !rows.is_empty() {
        connection.client.execute(statement, parameters).await?;
    }
    Ok(())
}

impl Removed {
    async fn run(&self, connection: &Connection) -> Result<(), PostgresError> {
        run(connection, &connection.statements.remove, &self.queue, &[&self.queue, &self.seq]).await
    }
}

impl RememberedIds {
    async fn run(&self, connection: &Connection) -> Result<(), PostgresError> {
        let Ids { queue, message, chunk } = &self.ids;
        let parameters: [&(dyn ToSql + Sync); 5] = [queue, message, chunk, &self.until, &self.ticket];
        run(connection, &connection.statements.remember, queue, &parameters).await
    }
}

impl Created<'_> {
    async fn run(&self, connection: &Connection) -> Result<(), PostgresError> {
        let Queues { queue, items, bytes, last_seq, due } = &self.queues;
        let parameters: [&(dyn ToSql + Sync); 6] = [queue, &self.recipient, items, bytes, last_seq, due];
        run(connection, &connection.statements.create_queues, queue, &parameters).await
    }
}

impl Queues {
    fn add(&mut self, key: Uuid, row: &QueueRow) {
        self.queue.push(key);
        self.items.push(signed(row.usage.items));
        self.bytes.push(signed(row.usage.bytes));
        self.last_seq.push(row.last_seq);
        self.due.push(ms(row.due));
    }

    async fn run(&self, connection: &Connection) -> Result<(), PostgresError> {
        let Self { queue, items, bytes, last_seq, due } = self;
        let parameters: [&(dyn ToSql + Sync); 5] = [queue, items, bytes, last_seq, due];
        run(connection, &connection.statements.update_queues, queue, &parameters).await
    }
}

impl Ids {
    /// Forgets these ids.
    async fn run(&self, connection: &Connection) -> Result<(), PostgresError> {
        let Self { queue, message, chunk } = self;
        run(connection, &connection.statements.forget, queue, &[queue, message, chunk]).await
    }

    fn add(&mut self, queue: Uuid, message: Uuid, chunk: u32) {
        self.queue.push(queue);
        self.message.push(message);
        self.chunk.push(i64::from(chunk));
    }
}

impl<'a> Inserted<'a> {
    fn add(&mut self, key: Uuid, new: &'a NewItem) {
        let item = &new.item;
        self.ids.add(key, message_uuid(item.message_id), item.chunk.index());
        self.seq.push(seq_number(item.seq));
        self.chunk_count.push(i64::from(item.chunk.count()));
        self.kind.push(item.kind.as_str().as_bytes());
        self.total_len.push(item.total_len.cast_signed());
        self.sent_ms.push(item.sent_ms.cast_signed());
        self.arrival.push(ms(item.arrival));
        self.deadline.push(ms(item.deadline));
        self.payload_bytes.push(signed(item.payload_bytes));
        self.ticket.push(new.ticket);
        self.body.push(&item.body);
    }

    async fn run(&self, connection: &Connection) -> Result<(), PostgresError> {
        let Ids { queue, message, chunk } = &self.ids;
        let parameters: [&(dyn ToSql + Sync); 13] = [
            queue,
            &self.seq,
            message,
            chunk,
            &self.chunk_count,
            &self.kind,
            &self.total_len,
            &self.sent_ms,
            &self.arrival,
            &self.deadline,
            &self.payload_bytes,
            &self.ticket,
            &self.body,
        ];
        run(connection, &connection.statements.insert, queue, &parameters).await
    }
}
