//! Rate limits by the name that a client has proven.

use std::num::NonZeroU64;
use std::time::Duration;

use relay_auth::Digest;
use relay_http::{Options, RateLimit};
use serde_json::json;

use crate::auth::{bearer, encode, key_name, locked_to_reader, name_of, post, secret, token_of};
use crate::limits::rate_limit;
use crate::support::{Client, Response, Server, memory, push_of};

/// Four requests at once by the address, and four by each name; then one in a long while.
fn server(limit: RateLimit) -> Server {
    let limit = RateLimit { max_wait: Duration::ZERO, ban: Duration::ZERO, ..limit };
    let options = Options { rate_limit: Some(limit), ..locked_to_reader() };
    Server::with(memory(relay_core::Limits::default()), options)
}

fn pull(client: &mut Client, name: u8, headers: &str) -> Response {
    post(client, "/pull", headers, &json!({"recipient": name_of(name)}))
}

/// How many requests in a row pass the rate limit, and the bucket that refuses the next one.
fn passed(mut ask: impl FnMut() -> Response) -> (usize, String) {
    for count in 0..100 {
        let response = ask();
        if response.status == 429 {
            return (count, response.json()["error"]["details"]["bucket"].as_str().unwrap().to_owned());
        }
    }
    panic!("the limit never refused");
}

#[test]
fn a_proven_name_counts_by_itself_after_its_first_request() {
    let server = server(rate_limit(4, 1, &[]));
    let mut client = server.connect();
    let (count, bucket) = passed(|| pull(&mut client, 1, &secret(1)));
    assert!((5..=7).contains(&count), "one by the address and four by the name: {count}");
    assert_eq!(bucket, "name");
    // The address has three left, for a second name and for those without.
    let (count, bucket) = passed(|| pull(&mut client, 2, &secret(2)));
    assert!((5..=7).contains(&count), "{count}");
    assert_eq!(bucket, "name");
    let (count, _) = passed(|| pull(&mut client, 1, ""));
    assert!((1..=4).contains(&count), "{count}");
}

#[test]
fn a_name_is_not_limited_by_an_address_that_has_used_up_its_tokens() {
    let server = server(rate_limit(4, 1, &[]));
    let mut client = server.connect();
    pull(&mut client, 1, &secret(1)).ok();
    let (_, bucket) = passed(|| pull(&mut client, 2, ""));
    assert!(["all", "pull"].contains(&&*bucket), "{bucket}");
    pull(&mut client, 1, &secret(1)).ok();
}

/// The bucket of a name that has earned a place does not help against other names.
#[test]
fn wrong_proofs_count_by_the_address() {
    let server = server(rate_limit(4, 1, &[]));
    let mut client = server.connect();
    pull(&mut client, 1, &secret(1)).ok();
    pull(&mut client, 1, &secret(1)).ok();
    let (count, bucket) = passed(|| pull(&mut client, 2, &secret(1)));
    assert!((2..=6).contains(&count), "one by the name, the others by the address: {count}");
    assert!(["all", "pull"].contains(&&*bucket), "{bucket}");
}

#[test]
fn malformed_and_unverified_proofs_count_by_the_address() {
    let signed_by_another = token_of(3, 4);
    for headers in [bearer("a.b.c"), bearer("short"), secret(1).repeat(2), signed_by_another] {
        let server = server(rate_limit(4, 1, &[]));
        let mut client = server.connect();
        let (count, bucket) = passed(|| pull(&mut client, 1, &headers));
        assert!((3..=6).contains(&count), "{count}");
        assert!(["all", "pull"].contains(&&*bucket), "{bucket}");
        // A push that needs no proof passes, and introduces nobody.
        let server = self::server(rate_limit(4, 1, &[]));
        let mut client = server.connect();
        let push = push_of(&name_of(9), 0, "aGVsbG8=");
        let (_, bucket) = passed(|| post(&mut client, "/push", &headers, &push));
        assert!(["all", "push"].contains(&&*bucket), "{bucket}");
    }
}

#[test]
fn a_token_counts_by_its_key_once_it_is_verified() {
    let server = server(rate_limit(4, 1, &[]));
    let mut client = server.connect();
    let body = json!({"recipient": key_name(3)});
    let (count, bucket) = passed(|| post(&mut client, "/pull", &token_of(3, 3), &body));
    assert!((5..=7).contains(&count), "{count}");
    assert_eq!(bucket, "name");
}

/// All senders have the secret of a send lock, so one of them must not use up what the others have.
#[test]
fn the_secret_of_a_send_lock_is_nobodys_name() {
    let server = server(rate_limit(4, 1, &[]));
    let mut client = server.connect();
    let name = format!("{}+sha256:{}", name_of(1), encode(Digest::of_send_secret(&[2; 32]).as_bytes()));
    let push = push_of(&name, 0, "aGVsbG8=");
    let (count, bucket) = passed(|| post(&mut client, "/push", &secret(2), &push));
    assert!((3..=6).contains(&count), "{count}");
    assert!(["all", "push"].contains(&&*bucket), "{bucket}");
}

/// A sender counts by its own name if its push carries the proof for it.
#[test]
fn a_push_counts_by_the_name_of_its_sender() {
    let server = server(rate_limit(4, 1, &[]));
    let mut client = server.connect();
    let mut index = 0;
    let mut push = |headers: &str| {
        index += 1;
        post(&mut client, "/push", headers, &push_of(&name_of(9), index - 1, "aGVsbG8="))
    };
    let (count, bucket) = passed(|| push(&secret(1)));
    assert!((5..=7).contains(&count), "{count}");
    assert_eq!(bucket, "name");
    assert_eq!(push("").status, 200, "the address has tokens left");
}

#[test]
fn bytes_count_by_the_address_even_with_a_name() {
    let second = NonZeroU64::new(1);
    let server = server(RateLimit { push_bytes_per_second: second, ..rate_limit(4, 1, &[]) });
    let mut client = server.connect();
    pull(&mut client, 1, &secret(1)).ok();
    let push = push_of(&name_of(9), 0, "aGVsbG8=");
    let (count, bucket) = passed(|| post(&mut client, "/push", &secret(1), &push));
    assert_eq!((count, &*bucket), (1, "bytes"));
    pull(&mut client, 1, &secret(1)).ok();
}
