//! Measures whether the time of an answer shows what the answer does not say: whether a queue
//! exists, and how much of a secret was right. Two requests that must not be told apart are sent in
//! random order over one connection.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::load::{ItemIds, Owner, Push, Recipients, authorization, post, random_bytes, unix_seconds};
use crate::{ack_body, pull_body, push_body};

use super::Lab;
use super::figure::{Bar, Section, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, run_to_end};
use super::probe::{Probe, ProbedAnswer};
use super::relay::{AUDIENCE, Settings};
use super::statistics::{Interval, RankSum, Sample};

/// Items in the queue that exists.
const ITEMS: u64 = 1000;

/// Exchanges before the clock counts.
const WARM_UP: u64 = 500;

/// Standard errors that chance exceeds once in a thousand times.
const Z_MAX: f64 = 3.29;

/// Recipients from this number on have no queues.
const ABSENT: u64 = 1 << 32;

/// How many keys there are on each side of a case with signatures.
const KEYS: u64 = 256;

/// A request for each number.
type Requests<'a> = Box<dyn Fn(u64) -> Bytes + 'a>;

/// One of two kinds of requests, and its name for tables.
struct Side<'a> {
    name: &'static str,
    request: Requests<'a>,
}

/// Two requests whose answers are compared.
struct Case<'a> {
    what: &'static str,
    sides: [Side<'a>; 2],
    /// Whether the answers must be alike in status, length and time.
    is_secret: bool,
    /// Exchanges of each side.
    exchanges: u64,
}

/// What was measured of one side.
#[derive(Default)]
struct Measured {
    nanoseconds: Vec<u64>,
    /// Status and length of the first answer, and how many others differ.
    first: Option<(u16, usize)>,
    others: u64,
}

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let exchanges = lab.at_length(50_000, 1_000);
    let mut section = Section::new(
        "What the time of an answer shows",
        format!(
            "Two requests are sent in random order over one connection, {} times each (pushes: {}), to a relay without rate limit: to a \
             recipient with {} items of 1 KiB and to one without a queue, or with two wrong proofs. Time from before the request is written \
             until the answer is read. z is that of a Mann-Whitney test: without a difference, its magnitude exceeds {Z_MAX} once in a \
             thousand times. The interval of a difference of medians is from a bootstrap. The control compares a request with itself, and the \
             request with the right proof shows what a difference looks like.",
            quantity(exchanges as f64, ""),
            quantity(push_exchanges(exchanges) as f64, ""),
            quantity(ITEMS as f64, ""),
        ),
    );
    let relay = lab.relay(Settings { has_tokens: true, ..Settings::default() })?;
    let address = relay.server.address;
    for recipients in [Recipients::with_secrets(1), Recipients::with_keys(KEYS, AUDIENCE, unix_seconds())] {
        run_to_end(
            &mut Push::new(ItemIds::of(1, recipients), PAYLOAD_BYTES, 0..ITEMS),
            address,
            CONNECTIONS,
        )?;
    }
    let mut cases = cases(exchanges);
    cases.push(push_case(push_exchanges(exchanges)));
    for case in &cases {
        add(&mut section, case, exchange(case, address)?);
    }
    Ok(section)
}

/// Fewer, because each waits for the disk.
const fn push_exchanges(exchanges: u64) -> u64 {
    exchanges * 2 / 5
}

fn cases(exchanges: u64) -> Vec<Case<'static>> {
    let [full, absent, stranger] = [0, ABSENT, ABSENT + 1].map(Owner::of_secret);
    let other_key = Owner::of_key(ABSENT + KEYS);
    let now = unix_seconds();
    let none = |_: &Owner| String::new();
    let wrong = |of: &Owner| authorization(&stranger.wrong_proof(of, AUDIENCE, now));
    let forged = |of: &Owner| authorization(&other_key.wrong_proof(of, AUDIENCE, now));
    // The time of a verification depends on the key, which is in the name and no secret. So both
    // sides have many keys.
    let forged_pulls = |first: u64| -> Requests<'static> {
        let requests: Vec<_> =
            (first..first + KEYS).map(Owner::of_key).map(|of| pull(&of, &forged(&of))).collect();
        let index = |number: u64| usize::try_from(number % KEYS).unwrap_or(0);
        Box::new(move |number| requests.get(index(number)).cloned().unwrap_or_default())
    };
    let right = |of: &Owner| authorization(&of.proof(AUDIENCE, now));
    let case = |what, names, requests: [Bytes; 2]| Case {
        what,
        sides: sides(names, requests.map(|request| Box::new(move |_| request.clone()) as Requests<'static>)),
        is_secret: true,
        exchanges,
    };
    let existence = ["1,000 items", "no queue"];
    let control = [(); 2].map(|()| pull(&full, &none(&full)));
    let guesses = [31, 0].map(|bytes| pull(&full, &authorization(&guess(bytes))));
    vec![
        case("control", ["a pull", "the same"], control),
        case("pull, no proof", existence, [&full, &absent].map(|of| pull(of, &none(of)))),
        case("pull, wrong secret", existence, [&full, &absent].map(|of| pull(of, &wrong(of)))),
        Case {
            sides: sides(["some items", "no queue"], [0, ABSENT].map(forged_pulls)),
            ..case("pull, wrong signature", existence, [Bytes::new(), Bytes::new()])
        },
        case("ack, no proof", existence, [&full, &absent].map(|of| ack(of, &none(of)))),
        case("ack, wrong secret", existence, [&full, &absent].map(|of| ack(of, &wrong(of)))),
        case("pull, wrong secret", ["31 of 32 bytes right", "none right"], guesses),
        Case {
            is_secret: false,
            ..case("pull, right secret", existence, [&full, &absent].map(|of| pull(of, &right(of))))
        },
    ]
}

/// Pushes without a proof, which are allowed. The queue that exists grows by them; each of the
/// others goes to another recipient without a queue.
fn push_case(exchanges: u64) -> Case<'static> {
    let full = Owner::of_secret(0);
    let to_full: Requests<'_> = Box::new(move |number| push(&full, number));
    let to_absent: Requests<'_> = Box::new(|number| push(&Owner::of_secret(ABSENT + 2 + number), number));
    let sides = sides(["1,000 items or more", "no queue"], [to_full, to_absent]);
    Case { what: "push, no proof", sides, is_secret: false, exchanges }
}

fn sides<'a>(names: [&'static str; 2], requests: [Requests<'a>; 2]) -> [Side<'a>; 2] {
    let ([one, other], [one_request, other_request]) = (names, requests);
    [Side { name: one, request: one_request }, Side { name: other, request: other_request }]
}

/// A secret of which this many bytes are those of the recipient with number 0, and the others not.
fn guess(right_bytes: usize) -> String {
    let mut secret = random_bytes(0);
    secret.iter_mut().skip(right_bytes).for_each(|byte| *byte = !*byte);
    Owner::with_secret(&secret).proof("", 0)
}

fn pull(of: &Owner, header: &str) -> Bytes {
    post("/pull", header.as_bytes(), pull_body(of.name(), None, Some(1)).to_string().as_bytes())
}

fn ack(of: &Owner, header: &str) -> Bytes {
    post("/ack", header.as_bytes(), ack_body(of.name(), &[1]).to_string().as_bytes())
}

fn push(to: &Owner, number: u64) -> Bytes {
    post("/push", b"", push_body(to.name(), u128::from(number), b"x").to_string().as_bytes())
}

/// Sends the requests of both sides in random order.
fn exchange(case: &Case<'_>, address: SocketAddr) -> anyhow::Result<[Measured; 2]> {
    let mut probe = Probe::connect(address)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut measured = [Measured::default(), Measured::default()];
    // As many of each side: a shuffled list, not coin tosses.
    let total = 2 * (WARM_UP + case.exchanges);
    let mut order: Vec<_> = (0..total).collect();
    random.shuffle(&mut order);
    for (turn, number) in order.into_iter().enumerate() {
        let is_one = number % 2 == 0;
        let [one, other] = &mut measured;
        let measured = if is_one { one } else { other };
        let [one, other] = &case.sides;
        let side = if is_one { one } else { other };
        let answer = probe.exchange(&(side.request)(number))?;
        if turn as u64 >= 2 * WARM_UP {
            measured.record(answer);
        }
    }
    Ok(measured)
}

impl Measured {
    fn record(&mut self, answer: ProbedAnswer) {
        self.nanoseconds.push(u64::try_from(answer.time.as_nanos()).unwrap_or(u64::MAX));
        let seen = (answer.status, answer.bytes);
        if *self.first.get_or_insert(seen) != seen {
            self.others += 1;
        }
    }
}

fn add(section: &mut Section, case: &Case<'_>, [one, other]: [Measured; 2]) {
    let what = case.what;
    let answers = [one.first, other.first];
    if case.is_secret && (answers[0] != answers[1] || one.others + other.others > 0) {
        section.note(format!(
            "{what}: the answers differ in status or length, which shows more than their time."
        ));
    }
    let samples = [one, other].map(|measured| Sample::new(measured.nanoseconds));
    for (Side { name, .. }, sample) in case.sides.iter().zip(&samples) {
        let [low, high] = [0.1, 0.9].map(|quantile| quantity(sample.quantile(quantile) / 1e3, "µs"));
        let what = format!("{what}, {name}: median (p10 {low}, p90 {high})");
        section.add(what, sample.quantile(0.5) / 1e3, "µs", Bar::None);
    }
    let [one, other] = &samples;
    let difference = Interval::of_difference(one, other);
    let text = format!("{what}: difference of the medians ({})", difference.bounds("ns"));
    section.add(text, difference.middle, "ns", Bar::None);
    let test = RankSum::of(one, other);
    let names: Vec<_> = case.sides.iter().map(|side| side.name).collect();
    let text =
        format!("{what}: {} takes longer in {:.2}% of pairs; z", names.join(" / "), test.greater * 100.0);
    // Without its sign, because a bar is one-sided.
    section.add(text, test.z.abs(), "", if case.is_secret { Bar::AtMost(Z_MAX) } else { Bar::None });
}

#[cfg(test)]
mod tests {
    use crate::Relay;
    use crate::load::command::address;

    use super::*;

    #[test]
    fn a_guess_shares_its_beginning_with_the_secret() {
        let right = Owner::of_secret(0).proof("", 0);
        let shared =
            |bytes| guess(bytes).bytes().zip(right.bytes()).take_while(|(one, other)| one == other).count();
        // Four characters are three bytes; the last characters hold the rest of the 31 bytes.
        assert!(shared(31) >= 41 && shared(0) <= 1, "{} {}", shared(31), shared(0));
        assert_eq!(guess(32), right);
    }

    #[test]
    fn answers_to_secret_cases_are_alike_and_refusals() {
        let relay = Relay::with(|config| config.auth.audiences = vec![AUDIENCE.to_owned()]);
        let address = address(&relay.base_url).unwrap();
        let mut cases = cases(1);
        cases.push(push_case(1));
        for case in cases {
            let mut probe = Probe::connect(address).unwrap();
            let [one, other] = [0, 1].map(|side| probe.exchange(&(case.sides[side].request)(1)).unwrap());
            assert_eq!(case.is_secret, matches!(one.status, 401 | 403), "{}", case.what);
            assert_eq!((one.status, one.bytes), (other.status, other.bytes), "{}", case.what);
        }
    }
}
