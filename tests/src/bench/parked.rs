//! Measures what many waiting pulls cost: their memory, the processor time of an idle relay, and
//! how fast hang-ups free their places and a shutdown answers them. Memory and processor time also
//! over TLS.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use tokio::runtime::Runtime;

use crate::load::now;

use super::Lab;
use super::figure::{Bar, Section};
use super::open_files;
use super::relay::{BenchRelay, Settings};
use super::subscriber::{Subscriber, runtime};

/// Waiters that hang up at once.
const HANG_UPS: usize = 1000;

/// How long their places may take to be free.
const HANG_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Waiters come one after the other, under 2,000 a second: a request takes more memory until it
/// waits.
const BETWEEN_WAITERS: Duration = Duration::from_micros(500);

/// How many connections come from one address of 127/8.
const CONNECTIONS_PER_ADDRESS: usize = 4000;

/// A relay, and the pulls that wait at it.
struct Parked {
    relay: BenchRelay,
    runtime: Runtime,
    waiters: Vec<Subscriber>,
}

pub(super) fn measure(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let waiters = lab.at_length(20_000, 500).min(open_files::allow(20_000)?);
    let parked = park(lab, section, waiters, false)?;
    measure_idle(lab, section, &parked.relay)?;
    hang_up_and_shut_down(parked, section)?;
    let parked = park(lab, section, waiters, true)?;
    measure_idle(lab, section, &parked.relay)
}

/// Lets pulls wait, and measures the memory of each.
fn park(lab: &Lab, section: &mut Section, count: usize, has_tls: bool) -> anyhow::Result<Parked> {
    let settings = Settings { connections_max: 30_000, has_metrics: true, has_tls, ..Settings::default() };
    let (relay, runtime) = (lab.relay(settings)?, runtime()?);
    // One more, so that everything that is allocated once is there.
    let mut waiters = vec![waiting(&runtime, &relay, usize::MAX)?];
    std::thread::sleep(Duration::from_millis(500));
    let before = relay.server.memory()?.resident;
    let start = now();
    for number in 0..count {
        waiters.push(waiting(&runtime, &relay, number)?);
        std::thread::sleep(BETWEEN_WAITERS);
    }
    let rate = count as f64 / (now() - start).as_secs_f64();
    std::thread::sleep(Duration::from_secs(2));
    let there = relay.metric("relay_waiting_pulls")?;
    ensure!(there == waiters.len() as f64, "{there} pulls wait, and not {}", waiters.len());
    let grown = relay.server.memory()?.resident.saturating_sub(before);
    let (over, bar) = if has_tls { (" over TLS", Bar::None) } else { ("", Bar::AtMost(10.0)) };
    section.add(
        format!(
            "{count} waiting pulls{over}, a connection each, {rate:.0} more a second: growth of RSS for each"
        ),
        grown as f64 / count as f64 / 1024.0,
        "KiB",
        bar,
    );
    Ok(Parked { relay, runtime, waiters })
}

fn measure_idle(lab: &Lab, section: &mut Section, relay: &BenchRelay) -> anyhow::Result<()> {
    let (cpu, idle) = (relay.server.cpu()?, Duration::from_secs(lab.at_length(20, 1)));
    std::thread::sleep(idle);
    let used = relay.server.cpu()?.saturating_sub(cpu);
    let percent = used.as_secs_f64() / idle.as_secs_f64() * 100.0;
    section.add("of a core while nothing happens", percent, "%", Bar::AtMost(2.0));
    Ok(())
}

fn hang_up_and_shut_down(parked: Parked, section: &mut Section) -> anyhow::Result<()> {
    let Parked { relay, runtime, mut waiters } = parked;
    hang_up(&relay, &mut waiters, section)?;
    shut_down(relay, &runtime, &mut waiters, section)
}

/// Many waiters hang up at once.
fn hang_up(relay: &BenchRelay, parked: &mut Vec<Subscriber>, section: &mut Section) -> anyhow::Result<()> {
    let stay = parked.len().saturating_sub(HANG_UPS).max(parked.len() / 2);
    let left = parked.len() - stay;
    let start = now();
    parked.truncate(stay);
    while relay.metric("relay_waiting_pulls")? > stay as f64 {
        ensure!(now() - start < HANG_UP_TIMEOUT, "places of waiters that hung up are not free");
    }
    let freed = (now() - start).as_secs_f64();
    section.add(format!("{left} hang up at once; their places are free after"), freed, "s", Bar::AtMost(1.0));
    Ok(())
}

fn shut_down(
    mut relay: BenchRelay,
    runtime: &Runtime,
    parked: &mut [Subscriber],
    section: &mut Section,
) -> anyhow::Result<()> {
    let start = now();
    relay.server.signal("TERM")?;
    let answered = runtime.block_on(async {
        let mut last = Duration::ZERO;
        for subscriber in parked {
            ensure!(subscriber.is_answered_with_an_empty_page().await?, "a wait was not answered");
            last = last.max(now().saturating_duration_since(start));
        }
        Ok(last)
    })?;
    section.add("a shutdown has answered all after", answered.as_secs_f64(), "s", Bar::AtMost(1.0));
    drop(relay.server.stop());
    Ok(())
}

/// A subscriber that waits, from one of several addresses.
fn waiting(runtime: &Runtime, relay: &BenchRelay, number: usize) -> anyhow::Result<Subscriber> {
    let host = u8::try_from(number / CONNECTIONS_PER_ADDRESS % 200).unwrap_or(0);
    let from = Ipv4Addr::new(127, 0, 1, host);
    runtime.block_on(async {
        let (address, tls) = (relay.server.address, relay.tls.as_ref());
        let mut subscriber = Subscriber::connect(address, from, format!("queue {number}"), tls).await?;
        subscriber.begin_waiting().await?;
        Ok(subscriber)
    })
}
