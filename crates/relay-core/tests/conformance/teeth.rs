//! Tests of the suite itself: each flaw of a store must fail in the expected parts of the suite.

use relay_core::testing::{run_operations, run_scenarios, run_threads};

use crate::stores::{Flaw, Persistent};

/// The parts of the suite that find a flaw.
#[derive(Clone, Copy)]
enum FoundBy {
    ScenariosAndOperations,
    /// The suite must also stop endless pages.
    AllParts,
    /// Random operations rarely find it.
    Scenarios,
    Threads,
}

#[test]
fn the_suite_finds_every_flaw() {
    use FoundBy::{AllParts, Scenarios, ScenariosAndOperations, Threads};
    for (flaw, found_by) in [
        (Flaw::ReportsDuplicateAsStored, ScenariosAndOperations),
        (Flaw::MovesDuplicatesToTheEnd, ScenariosAndOperations),
        (Flaw::CountsExpired, ScenariosAndOperations),
        (Flaw::CursorRepeatsItsItem, ScenariosAndOperations),
        (Flaw::DeadlineFromCurrentTtl, ScenariosAndOperations),
        (Flaw::ExpiredFillQuota, ScenariosAndOperations),
        (Flaw::ExpiresLate, ScenariosAndOperations),
        (Flaw::FollowsClockBack, ScenariosAndOperations),
        (Flaw::ForgetsAcked, ScenariosAndOperations),
        (Flaw::KeepsItemsBehindLongerOnes, ScenariosAndOperations),
        (Flaw::AcksNothingThroughCursor, ScenariosAndOperations),
        (Flaw::ForgetsAckedThroughCursor, ScenariosAndOperations),
        (Flaw::IgnoresCursor, AllParts),
        (Flaw::IgnoresMax, ScenariosAndOperations),
        (Flaw::IgnoresPageBytes, ScenariosAndOperations),
        (Flaw::DetectsDuplicatesPerThread, Threads),
        (Flaw::LosesAllOnReopen, ScenariosAndOperations),
        (Flaw::LosesChunkCount, ScenariosAndOperations),
        (Flaw::LosesKind, ScenariosAndOperations),
        (Flaw::LosesSendingTime, ScenariosAndOperations),
        (Flaw::MissesLastItem, ScenariosAndOperations),
        (Flaw::IgnoresConflicts, ScenariosAndOperations),
        (Flaw::RemainingCountsWholeQueue, ScenariosAndOperations),
        (Flaw::RemembersAckedTooLong, ScenariosAndOperations),
        (Flaw::Reorders, ScenariosAndOperations),
        (Flaw::ReusesArrivalNumbers, Scenarios),
        (Flaw::ShowsExpired, ScenariosAndOperations),
        (Flaw::SweepReclaimsNothing, ScenariosAndOperations),
        (Flaw::AcceptsOneByteTooMany, ScenariosAndOperations),
        (Flaw::AcceptsOneItemTooMany, ScenariosAndOperations),
        (Flaw::ConfusesRecipients, ScenariosAndOperations),
        (Flaw::AcceptsTooLargeByOne, ScenariosAndOperations),
        (Flaw::ReportsMissingAsDeleted, ScenariosAndOperations),
        (Flaw::ZeroesPayloads, ScenariosAndOperations),
    ] {
        let harness = &mut Persistent::new(Some(flaw));
        if matches!(found_by, AllParts | Scenarios | ScenariosAndOperations) {
            assert!(run_scenarios(harness).is_err(), "no scenario finds {flaw:?}");
        }
        if matches!(found_by, AllParts | ScenariosAndOperations) {
            assert!(run_operations(harness).is_err(), "no random operations find {flaw:?}");
        }
        if matches!(found_by, AllParts | Threads) {
            assert!(run_threads(harness).is_err(), "no thread test finds {flaw:?}");
        }
    }
}

#[test]
fn a_failure_is_minimal_and_reproducible() {
    let harness = &mut Persistent::new(Some(Flaw::IgnoresConflicts));
    let scenario = run_scenarios(harness).unwrap_err().to_string();
    let expected = "duplicates.txt:5: push alice m1/0 10B:x -> conflict 1/10B
  expected: conflict 1/10B
  got:      duplicate 1/10B";
    assert!(scenario.contains(expected), "{scenario}");

    let operations = run_operations(harness).unwrap_err().to_string();
    assert!(operations.starts_with("seed 1: operation 2, Push"), "{operations}");
    assert_eq!(operations.matches("\n  Push").count(), 2, "not minimal: {operations}");
    assert_eq!(operations, run_operations(harness).unwrap_err().to_string(), "not reproducible");
}
