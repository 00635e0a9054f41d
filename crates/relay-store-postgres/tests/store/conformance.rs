//! The conformance suite: scenarios, random operations against the model, and threads.

use std::future::Future;
use std::sync::Arc;

use relay_core::Limits;
use relay_core::testing::{Harness, ManualClock, Plan, conformance};
use relay_store_postgres::testing::execute;
use relay_store_postgres::{Admin, Options, PostgresRelay};

use super::support;

#[test]
fn a_relay_over_postgresql_passes_the_conformance_suite() {
    let Some((_server, options)) = support::database() else { return };
    let admin = Admin::connect(&options).unwrap();
    conformance(&mut OverPostgres { options, admin, cases: 32 }).unwrap();
}

#[test]
fn a_relay_over_two_databases_passes_the_conformance_suite() {
    let Some((server, _)) = support::database() else { return };
    let options = support::two_shards(&server, &server);
    let admin = Admin::connect(&options).unwrap();
    conformance(&mut OverPostgres { options, admin, cases: 12 }).unwrap();
}

struct OverPostgres {
    options: Options,
    admin: Admin,
    cases: u32,
}

impl Harness for OverPostgres {
    type Relay = PostgresRelay;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> PostgresRelay {
        let empty = "SET search_path = relay; TRUNCATE queue, item, acked; UPDATE meta SET seq_floor = 0";
        self.options.shards.iter().for_each(|shard| _ = execute(&shard.dsn, empty).unwrap());
        support::open_with_clock(&self.options, limits, &clock)
    }

    fn reopen(
        &mut self,
        relay: PostgresRelay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<PostgresRelay, PostgresRelay> {
        drop(relay);
        Ok(support::open_with_clock(&self.options, limits, &clock))
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        pollster::block_on(future)
    }

    fn verify(&mut self, _: &PostgresRelay) -> Vec<String> {
        self.admin.verify().unwrap()
    }

    fn plan(&self) -> Plan {
        Plan { cases: self.cases, ..Plan::default() }
    }
}
