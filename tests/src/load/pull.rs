//! Pulls of known pages, and of queues as they are. A run compares each response to a known page
//! with what that was before the clock started.

use std::io;

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Client, pull_body};

use super::names::ItemIds;
use super::recipients::Recipients;
use super::request::{END_OF_HEAD, Kind, Request, open_head, post};
use super::{Next, ResponseSummary, Workload};

/// The beginning of the response to a pull that shows an item.
const SHOWN: &[u8] = br#"{"items":[{"#;

const BEFORE_RECIPIENT: &[u8] = br#"{"recipient":""#;
const AFTER_RECIPIENT: &[u8] = br#"","cursor":null,"max":null}"#;

/// One page of a queue that does not change.
#[derive(Clone, Debug)]
pub struct Page {
    /// The complete request for the page.
    pub request: Bytes,
    /// The length of the response body.
    pub body_bytes: u64,
    /// The number of items in the page.
    pub items: u64,
}

/// Pulls pages in turn, without end.
#[derive(Debug)]
pub struct Pull {
    pages: Vec<Page>,
    begun: u64,
}

impl Pull {
    /// Pulls `pages` in turn. Without pages, the workload ends at once.
    pub const fn new(pages: Vec<Page>) -> Self {
        Self { pages, begun: 0 }
    }

    fn page(&self, number: u64) -> Option<&Page> {
        let index = number.checked_rem(self.pages.len() as u64)?;
        self.pages.get(usize::try_from(index).ok()?)
    }
}

impl Workload for Pull {
    fn next(&mut self, request: &mut Request) -> Next {
        let Some(page) = self.page(self.begun) else { return Next::End };
        request.kind = Kind::Pull;
        request.number = self.begun;
        request.head.clear();
        request.payload = page.request.clone();
        self.begun += 1;
        Next::Send
    }

    /// A page of another length counts as no items.
    fn answered(&mut self, request: &Request, response: &ResponseSummary) -> u64 {
        let page = self.page(request.number);
        page.filter(|page| response.status == 200 && response.body_bytes == page.body_bytes)
            .map_or(0, |page| page.items)
    }
}

/// Reads the queue of a recipient by its cursors, at most `pages_max` pages. Passes the body of the
/// first page to `first`.
///
/// # Errors
/// When a connection breaks, or a response is not a page.
pub fn walk(
    client: &mut Client,
    recipients: &Recipients,
    recipient: u64,
    pages_max: usize,
    mut first: impl FnMut(&[u8]),
) -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut cursor: Option<String> = None;
    while pages.len() < pages_max {
        let request = pull_request(recipients, recipient, cursor.as_deref());
        client.send(&request)?;
        let response = client.receive()?;
        let json = response.json();
        let items = json.pointer("/items").and_then(Value::as_array).ok_or_else(|| {
            io::Error::other(format!(
                "unexpected response to a pull: {} {}",
                response.status,
                response.code()
            ))
        })?;
        if pages.is_empty() {
            first(&response.body);
        }
        pages.push(Page { request, body_bytes: response.body.len() as u64, items: items.len() as u64 });
        cursor = json.pointer("/next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(pages)
}

/// The request for the page at a cursor, or for the first one, with the proof that it needs.
pub fn pull_request(recipients: &Recipients, recipient: u64, cursor: Option<&str>) -> Bytes {
    let mut name = Vec::new();
    recipients.write_name(recipient, &mut name);
    let body = pull_body(&String::from_utf8_lossy(&name), cursor, None).to_string();
    let mut proof = Vec::new();
    recipients.write_proof(recipient, &mut proof);
    post("/pull", &proof, body.as_bytes())
}

/// Writes a pull of the first page of an item's recipient.
pub(super) fn write_pull(ids: &ItemIds, item: u64, request: &mut Request) {
    request.kind = Kind::Pull;
    request.number = item;
    (request.payload, request.tail) = (Bytes::new(), Bytes::new());
    let (recipient, recipients, head) = (ids.recipient_of(item), ids.recipients(), &mut request.head);
    let body_bytes = BEFORE_RECIPIENT.len() + recipients.name_bytes() + AFTER_RECIPIENT.len();
    open_head("/pull", body_bytes, head);
    recipients.write_proof(recipient, head);
    head.extend_from_slice(END_OF_HEAD);
    head.extend_from_slice(BEFORE_RECIPIENT);
    recipients.write_name(recipient, head);
    head.extend_from_slice(AFTER_RECIPIENT);
}

/// 1 if a page has an item, else 0.
pub(super) fn shown(response: &ResponseSummary) -> u64 {
    u64::from(response.is_ok_with(SHOWN))
}
