//! Pulls of known pages. A run compares each response with what the page was before the clock
//! started.

use std::io;

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Client, pull_body};

use super::names::ItemIds;
use super::request::{Kind, Request, head};
use super::{Next, ResponseSummary, Workload};

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
    recipient: u64,
    pages_max: usize,
    mut first: impl FnMut(&[u8]),
) -> io::Result<Vec<Page>> {
    let mut recipient_text = Vec::new();
    ItemIds::write_recipient(recipient, &mut recipient_text);
    let recipient_text = String::from_utf8(recipient_text).map_err(io::Error::other)?;
    let mut pages = Vec::new();
    let mut cursor: Option<String> = None;
    while pages.len() < pages_max {
        let body = pull_body(&recipient_text, cursor.as_deref(), None);
        let response = client.post("/pull", &body)?;
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
        let body = body.to_string();
        let request = (head("/pull", body.len()) + &body).into();
        pages.push(Page { request, body_bytes: response.body.len() as u64, items: items.len() as u64 });
        cursor = json.pointer("/next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(pages)
}
