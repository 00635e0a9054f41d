//! The names of queues: each must lead to a queue that is its own.

use relay_core::verify::Findings;

use crate::error::StoreError;
use crate::format::{self, Counters, Key};
use crate::version::view::ReadView;

/// Goes from every name to its queue. The way back is that of the queues.
pub(super) fn check(
    view: &ReadView<'_>,
    largest: &mut Counters,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut failed = Ok(());
    view.each_recipient(&mut |found| {
        let wrong = found.and_then(|(name, queue)| {
            largest.queue = largest.queue.max(queue);
            let is_its_own = match view.read(&Key::owner(queue), format::decode_owner) {
                Ok(owner) => owner.as_ref() == Some(name),
                // It is told where rows are.
                Err(StoreError::Corrupted(_)) => true,
                Err(error) => return Err(error),
            };
            let is_there = view.get(&Key::queue(queue))?.is_some();
            Ok(match (is_there, is_its_own) {
                (false, _) => Some(format!("a name leads to queue number {queue}, which is not there")),
                (true, false) => Some(format!("a name leads to queue number {queue}, which is not its own")),
                (true, true) => None,
            })
        });
        match wrong {
            Ok(wrong) => wrong.into_iter().for_each(|wrong| findings.add(wrong)),
            Err(StoreError::Corrupted(what)) => findings.add(format!("the index: {what}")),
            Err(error) if error.is_corruption() => findings.add(format!("the index: a name: {error}")),
            Err(error) => failed = Err(error),
        }
    })?;
    failed
}
