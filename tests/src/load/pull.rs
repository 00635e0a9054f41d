//! Pulls of pages that are known: what each must answer is looked up before the clock starts.

use std::io;

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Client, pull_body};

use super::names::Names;
use super::request::{Kind, Request, head};
use super::{Answer, Next, Workload};

/// One page of a queue that nobody changes.
#[derive(Clone, Debug)]
pub struct Page {
    /// The request for it, to the byte.
    pub request: Bytes,
    /// The length of the answer's body.
    pub body_bytes: u64,
    /// How many items it shows.
    pub items: u64,
}

/// Pulls some pages in turn, for ever.
#[derive(Debug)]
pub struct Pull {
    pages: Vec<Page>,
    begun: u64,
}

impl Pull {
    /// Pulls of `pages`, of which there must be one at least.
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

    /// A page that is not as long as it was is worth nothing.
    fn answered(&mut self, request: &Request, answer: &Answer) -> u64 {
        let page = self.page(request.number);
        page.filter(|page| answer.status == 200 && answer.body_bytes == page.body_bytes)
            .map_or(0, |page| page.items)
    }
}

/// Reads the queue of the recipient of this number along its cursors, at most `pages_max` pages.
/// The first one's body is handed to `first`.
///
/// # Errors
/// When the relay does not answer as it should.
pub fn walk(
    client: &mut Client,
    recipient: u64,
    pages_max: usize,
    mut first: impl FnMut(&[u8]),
) -> io::Result<Vec<Page>> {
    let mut name = Vec::new();
    Names::write_recipient(recipient, &mut name);
    let name = String::from_utf8(name).map_err(io::Error::other)?;
    let mut pages = Vec::new();
    let mut cursor: Option<String> = None;
    while pages.len() < pages_max {
        let body = pull_body(&name, cursor.as_deref(), None);
        let answer = client.post("/pull", &body)?;
        let json = answer.json();
        let items = json.pointer("/items").and_then(Value::as_array).ok_or_else(|| {
            io::Error::other(format!("a pull was answered with {} {}", answer.status, answer.code()))
        })?;
        if pages.is_empty() {
            first(&answer.body);
        }
        let body = body.to_string();
        let request = (head("/pull", body.len()) + &body).into();
        pages.push(Page { request, body_bytes: answer.body.len() as u64, items: items.len() as u64 });
        cursor = json.pointer("/next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(pages)
}
