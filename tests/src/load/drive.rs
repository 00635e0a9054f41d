//! The loop that keeps all connections busy. It decides when to send; the workload decides what.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use super::clock::{now, thread_cpu};
use super::connection::LoadConnection;
use super::pace::{Pace, Schedule};
use super::report::Report;
use super::{Next, Workload};

/// How much is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The run fails when no response arrives for this long.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the flag of [`Stop`] is checked while nothing happens.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Where to send, how fast and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The relay.
    pub address: SocketAddr,
    /// The number of connections. They are opened before the clock starts.
    pub connections: usize,
    /// How fast requests are sent.
    pub pace: Pace,
    /// When the run ends, unless the workload ends earlier.
    pub stop: Stop,
}

/// When to send no more requests: the first condition counts. Requests in flight still get their
/// responses.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// After this many requests.
    pub requests: Option<u64>,
    /// After this time.
    pub time: Option<Duration>,
    /// When this flag is set.
    pub flag: Option<Arc<AtomicBool>>,
}

/// Sends the requests of the workload and waits for all responses.
///
/// # Errors
/// When a connection breaks, a response is malformed, or nothing arrives for a minute. A response
/// with an error status is not an error here.
pub fn run(workload: &mut impl Workload, plan: &Plan) -> io::Result<Report> {
    let mut driver = Driver::open(workload, plan)?;
    let (cpu, start) = (thread_cpu(), now());
    driver.schedule = Schedule::new(plan.pace, start);
    driver.deadline = plan.stop.time.map(|time| start + time);
    driver.last_response = start;
    driver.run()?;
    let mut report = driver.report;
    report.elapsed = driver.last_response - start;
    report.cpu = thread_cpu().saturating_sub(cpu);
    Ok(report)
}

struct Driver<'a, W> {
    workload: &'a mut W,
    stop: &'a Stop,
    epoll: OwnedFd,
    connections: Vec<LoadConnection>,
    /// Idle connections, the one idle longest first.
    free: VecDeque<usize>,
    schedule: Schedule,
    deadline: Option<Instant>,
    is_ended: bool,
    last_response: Instant,
    report: Report,
    buffer: Vec<u8>,
}

impl<'a, W: Workload> Driver<'a, W> {
    fn open(workload: &'a mut W, plan: &'a Plan) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(plan.connections);
        for index in 0..plan.connections.max(1) {
            let connection = LoadConnection::open(plan.address)?;
            // Edge-triggered: a connection is registered once for its whole life.
            let edges = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&epoll, &connection.stream, EventData::new_u64(index as u64), edges)?;
            connections.push(connection);
        }
        let start = now();
        Ok(Self {
            workload,
            stop: &plan.stop,
            epoll,
            free: (0..connections.len()).collect(),
            connections,
            schedule: Schedule::new(plan.pace, start),
            deadline: None,
            is_ended: false,
            last_response: start,
            report: Report::default(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(self.connections.len());
        let mut last_event = now();
        loop {
            let time = now();
            self.send_due(time)?;
            let in_flight = self.connections.len() - self.free.len();
            if self.is_ended && in_flight == 0 {
                return Ok(());
            }
            if in_flight > 0 && time.saturating_duration_since(last_event) > RESPONSE_TIMEOUT {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no response from the relay"));
            }
            events.clear();
            self.wait(&mut events, time)?;
            for event in &events {
                let index = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
                self.handle(index, event.flags)?;
            }
            if !events.is_empty() || in_flight == 0 {
                last_event = now();
            }
        }
    }

    /// Begins the requests that are due, as long as a connection is idle.
    fn send_due(&mut self, time: Instant) -> io::Result<()> {
        self.is_ended = self.is_ended || self.is_stopped(time);
        while !self.is_ended {
            let due = self.schedule.due();
            let Some(index) = self.free.front().copied().filter(|_| due.is_none_or(|due| due <= time)) else {
                break;
            };
            let Some(connection) = self.connections.get_mut(index) else { break };
            match self.workload.next(&mut connection.request) {
                Next::Send => {
                    self.free.pop_front();
                    self.schedule.begin();
                    connection.begin(due.unwrap_or_else(now))?;
                }
                Next::Wait => break,
                Next::End => self.is_ended = true,
            }
            self.is_ended =
                self.is_ended || self.stop.requests.is_some_and(|limit| self.schedule.begun() >= limit);
        }
        Ok(())
    }

    fn is_stopped(&self, time: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= time)
            || self.stop.requests.is_some_and(|limit| self.schedule.begun() >= limit)
            || self.stop.flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Waits until an event arrives or the next request is due.
    fn wait(&self, events: &mut Vec<Event>, time: Instant) -> io::Result<()> {
        let due = self.schedule.due().filter(|_| !self.is_ended && !self.free.is_empty());
        let until = due.into_iter().chain(self.deadline).filter(|_| !self.is_ended).min();
        let timeout =
            until.map_or(POLL_INTERVAL, |until| until.saturating_duration_since(time).min(POLL_INTERVAL));
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn handle(&mut self, index: usize, flags: EventFlags) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(()) };
        if connection.started.is_some() && flags.contains(EventFlags::OUT) {
            connection.send()?;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return Ok(());
        }
        let (workload, report) = (&mut *self.workload, &mut self.report);
        let answered = connection.receive(&mut self.buffer, |request, response, since| {
            let time = now();
            let items = workload.answered(request, response);
            let tally = report.tallies.entry(request.kind).or_default();
            tally.record(response.status, items, time.saturating_duration_since(since));
            time
        })?;
        if let Some(time) = answered {
            self.last_response = time;
            self.free.push_back(index);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::Relay;
    use crate::load::command::address;
    use crate::load::{Ack, Cycle, Groups, ItemIds, Kind, Mixed, Pull, Push, Recipients, unix_seconds, walk};

    use super::*;

    fn plan(relay: &Relay, pace: Pace) -> Plan {
        let address = address(&relay.base_url).unwrap();
        Plan { address, connections: 3, pace, stop: Stop::default() }
    }

    #[test]
    fn pushed_items_can_be_pulled_and_acked() {
        let relay = Relay::start();
        let ids = ItemIds::new(1, 2);
        let closed = plan(&relay, Pace::Closed);
        let pushed = run(&mut Push::new(ids.clone(), 100_000, 0..50), &closed).unwrap().tally(Kind::Push);
        assert_eq!((pushed.succeeded(), pushed.items), (50, 50));
        let repeated = run(&mut Push::new(ids.clone(), 100_000, 0..50), &closed).unwrap().tally(Kind::Push);
        assert_eq!((repeated.succeeded(), repeated.items), (50, 0), "a duplicate succeeds and is not stored");

        let mut shown = 0;
        for recipient in 0..2 {
            let pages =
                walk(&mut relay.connect().unwrap(), ids.recipients(), recipient, usize::MAX, |_| ()).unwrap();
            let stop = Stop { requests: Some(pages.len() as u64), ..Stop::default() };
            shown += run(&mut Pull::new(pages), &Plan { stop, ..closed }).unwrap().tally(Kind::Pull).items;
        }
        assert_eq!(shown, 50);

        let groups = Groups::new(&ids, 0..60, 7);
        let acked = run(&mut Ack::new(ids, groups), &closed).unwrap().tally(Kind::Ack);
        assert_eq!((acked.failed(), acked.items), (0, 50));
    }

    #[test]
    fn a_mixed_load_acks_every_item_that_it_pushes() {
        let relay = Relay::start();
        let mut mixed = Mixed::new(ItemIds::new(1, 20), 10, 5..1005, 100, 4);
        let report = run(&mut mixed, &plan(&relay, Pace::Closed)).unwrap();
        assert_eq!([Kind::Push, Kind::Ack].map(|kind| report.tally(kind).items), [1000, 1000]);
    }

    /// Each of these loads fails if a pull or an ack carries no proof, or that of somebody else.
    #[test]
    fn locked_recipients_are_pulled_and_acked_with_their_proofs() {
        const AUDIENCE: &str = "https://relay.example.org";
        let relay = Relay::with(|config| config.auth.audiences = vec![AUDIENCE.to_owned()]);
        let closed = plan(&relay, Pace::Closed);
        for recipients in [
            Recipients::plain(5, 50),
            Recipients::with_secrets(5),
            Recipients::with_keys(5, AUDIENCE, unix_seconds()),
        ] {
            let ids = ItemIds::of(1, recipients);
            let mut cycle = Cycle::new(ids.clone(), 10, 0..100).with_sender_proofs();
            let report = run(&mut cycle, &closed).unwrap();
            let tallies = Kind::ALL.map(|kind| report.tally(kind));
            assert_eq!(tallies.map(|tally| tally.succeeded()), [100; 3], "{ids:?}");
            assert_eq!([Kind::Push, Kind::Ack].map(|kind| report.tally(kind).items), [100, 100]);
            assert!(report.tally(Kind::Pull).items > 0);

            let report = run(&mut Mixed::new(ids.clone(), 10, 100..200, 10, 4), &closed).unwrap();
            assert_eq!([Kind::Push, Kind::Ack].map(|kind| report.tally(kind).items), [100, 100]);
        }
    }

    #[test]
    fn an_open_loop_keeps_its_rate_and_stops() {
        let relay = Relay::start();
        let plan = plan(&relay, Pace::PerSecond(1000.0));
        let mut push = Push::new(ItemIds::new(1, 20), 10, 0..u64::MAX);
        let stop = Stop { requests: Some(101), ..Stop::default() };
        let report = run(&mut push, &Plan { stop, ..plan }).unwrap();
        assert_eq!(report.tally(Kind::Push).items, 101);
        assert!(report.elapsed >= Duration::from_millis(100), "{:?}", report.elapsed);

        let stop = Stop { flag: Some(Arc::new(AtomicBool::new(true))), ..Stop::default() };
        assert_eq!(run(&mut push, &Plan { stop, ..plan }).unwrap().tally(Kind::Push).items, 0);
        let stop = Stop { time: Some(Duration::ZERO), ..Stop::default() };
        assert_eq!(run(&mut push, &Plan { stop, ..plan }).unwrap().tally(Kind::Push).items, 0);
    }

    #[test]
    fn the_run_fails_when_the_relay_has_ended() {
        let relay = Relay::start();
        let plan = plan(&relay, Pace::Closed);
        drop(relay);
        run(&mut Push::new(ItemIds::new(1, 1), 1, 0..1), &plan).unwrap_err();
    }
}
