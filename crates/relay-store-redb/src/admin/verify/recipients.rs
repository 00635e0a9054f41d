//! Checks that each recipient leads to a queue, and that the queue belongs to the recipient.

use relay_core::verify::Findings;

use crate::error::StoreError;
use crate::format::{self, Counters, Key};
use crate::version::view::ReadView;

/// Checks the way from every recipient to its queue. The check of a queue covers the way back.
pub(super) fn check(
    view: &ReadView<'_>,
    largest: &mut Counters,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    let mut failed = Ok(());
    view.each_recipient(&mut |found| {
        let checked = found.and_then(|(recipient, queue)| {
            largest.queue = largest.queue.max(queue);
            let is_owner = match view.read(&Key::owner(queue), format::decode_owner) {
                Ok(owner) => owner.as_ref() == Some(recipient),
                // The check of the rows reports it.
                Err(StoreError::Corrupted(_)) => true,
                Err(error) => return Err(error),
            };
            let wrong = match view.get(&Key::queue(queue))? {
                None => "which does not exist",
                Some(_) if !is_owner => "which does not belong to it",
                Some(_) => return Ok(()),
            };
            findings.add(format!("a recipient leads to queue number {queue}, {wrong}"));
            Ok(())
        });
        match checked {
            Ok(()) => {}
            Err(StoreError::Corrupted(what)) => findings.add(format!("the index: {what}")),
            Err(error) if error.is_corruption() => findings.add(format!("the index: a recipient: {error}")),
            Err(error) => failed = Err(error),
        }
    })?;
    failed
}
