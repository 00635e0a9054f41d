//! A suite that passes everything proves nothing: each flaw here must be found, by the parts that
//! are there to find it.

use relay_core::testing::{run_operations, run_scenarios, run_threads};

use crate::stores::{Flaw, Kept};

/// The parts of the suite that find a flaw.
#[derive(Clone, Copy)]
enum FoundBy {
    ScenariosAndOperations,
    /// Would page for ever, if nothing stopped it.
    AllParts,
    /// Too rare for chance.
    Scenarios,
    Threads,
}

#[test]
fn every_flaw_is_found() {
    use FoundBy::{AllParts, Scenarios, ScenariosAndOperations, Threads};
    for (flaw, found_by) in [
        (Flaw::AnswersDuplicateWithStored, ScenariosAndOperations),
        (Flaw::BringsDuplicatesToTheEnd, ScenariosAndOperations),
        (Flaw::CountsExpired, ScenariosAndOperations),
        (Flaw::CursorShowsItsItemAgain, ScenariosAndOperations),
        (Flaw::DeadlineFromPresentTtl, ScenariosAndOperations),
        (Flaw::ExpiredFillQuota, ScenariosAndOperations),
        (Flaw::ExpiresLate, ScenariosAndOperations),
        (Flaw::FollowsClockBack, ScenariosAndOperations),
        (Flaw::ForgetsAcked, ScenariosAndOperations),
        (Flaw::IgnoresCursor, AllParts),
        (Flaw::IgnoresMax, ScenariosAndOperations),
        (Flaw::IgnoresPageBytes, ScenariosAndOperations),
        (Flaw::KnowsDuplicatesPerThread, Threads),
        (Flaw::LosesAllOnReopen, ScenariosAndOperations),
        (Flaw::LosesChunkCount, ScenariosAndOperations),
        (Flaw::LosesKind, ScenariosAndOperations),
        (Flaw::LosesSendingTime, ScenariosAndOperations),
        (Flaw::MissesLastItem, ScenariosAndOperations),
        (Flaw::OverlooksConflicts, ScenariosAndOperations),
        (Flaw::RemainingCountsWholeQueue, ScenariosAndOperations),
        (Flaw::RemembersAckedTooLong, ScenariosAndOperations),
        (Flaw::Reorders, ScenariosAndOperations),
        (Flaw::ReusesArrivalNumbers, Scenarios),
        (Flaw::ShowsExpired, ScenariosAndOperations),
        (Flaw::SweepReclaimsNothing, ScenariosAndOperations),
        (Flaw::TakesOneByteTooMany, ScenariosAndOperations),
        (Flaw::TakesOneItemTooMany, ScenariosAndOperations),
        (Flaw::TakesRecipientsForEachOther, ScenariosAndOperations),
        (Flaw::TakesTooLargeByOne, ScenariosAndOperations),
        (Flaw::TellsMissingAsDeleted, ScenariosAndOperations),
        (Flaw::ZeroesPayloads, ScenariosAndOperations),
    ] {
        let harness = &mut Kept::new(Some(flaw));
        if matches!(found_by, AllParts | Scenarios | ScenariosAndOperations) {
            assert!(run_scenarios(harness).is_err(), "no scenario finds {flaw:?}");
        }
        if matches!(found_by, AllParts | ScenariosAndOperations) {
            assert!(run_operations(harness).is_err(), "no operations find {flaw:?}");
        }
        if matches!(found_by, AllParts | Threads) {
            assert!(run_threads(harness).is_err(), "no threads find {flaw:?}");
        }
    }
}

#[test]
fn a_failure_tells_how_to_see_it_again() {
    let harness = &mut Kept::new(Some(Flaw::OverlooksConflicts));
    let scenario = run_scenarios(harness).unwrap_err().to_string();
    let expected = "duplicates.txt:5: push alice m1/0 10B:x -> conflict 1/10B
  expected: conflict 1/10B
  got:      duplicate 1/10B";
    assert!(scenario.contains(expected), "{scenario}");

    let operations = run_operations(harness).unwrap_err().to_string();
    assert!(operations.starts_with("seed 1: operation 2, Push"), "{operations}");
    assert_eq!(operations.matches("\n  Push").count(), 2, "not as short as can be: {operations}");
    assert_eq!(operations, run_operations(harness).unwrap_err().to_string(), "not the same again");
}
