//! A blocking HTTP/1.1 client on one connection. It returns responses unchanged and never retries.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// How long a response may take before a test fails: far longer than any response should.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A keep-alive connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// A response as received.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects to a base URL such as `http://127.0.0.1:7000`.
    pub fn connect(base_url: &str) -> io::Result<Self> {
        Self::connect_for(base_url, TIMEOUT)
    }

    /// Like [`Client::connect`], with another time limit for a response.
    pub fn connect_for(base_url: &str, timeout: Duration) -> io::Result<Self> {
        let address = base_url.split_once("://").map_or(base_url, |(_, address)| address);
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        Self::over(TcpStream::connect(address)?, timeout)
    }

    /// Uses an open connection, with this time limit.
    pub fn over(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The local address of the connection.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.get_ref().local_addr()
    }

    /// Pulls a queue from beginning to end. Returns its items, or the first response with a status
    /// other than 200.
    pub fn pull_all(&mut self, recipient: &str) -> io::Result<Result<Vec<Value>, Response>> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let response = self.post("/pull", &pull_body(recipient, cursor.as_deref(), None))?;
            if response.status != 200 {
                return Ok(Err(response));
            }
            let page = response.json();
            items.extend(page.get("items").and_then(Value::as_array).into_iter().flatten().cloned());
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(Ok(items)),
            }
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Closes the sending half. Responses can still be read.
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// Posts JSON and reads the response.
    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Response> {
        self.post_bytes(path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Posts a body as it is and reads the response.
    pub fn post_bytes(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let mut head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut request = head.into_bytes();
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        self.send(&request)?;
        self.receive()
    }

    /// Gets a path and reads the response.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
        self.receive()
    }

    /// Reads one response and skips interim ones such as 100.
    pub fn receive(&mut self) -> io::Result<Response> {
        loop {
            let response = self.receive_any()?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    /// Reads one response, interim ones such as 100 included.
    pub fn receive_any(&mut self) -> io::Result<Response> {
        let status_line = self.read_line()?;
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        let length = response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        response.body.resize(length, 0);
        self.stream.read_exact(&mut response.body)?;
        Ok(response)
    }

    /// Whether the server has closed the connection after everything that it sent was read.
    pub fn is_closed(&mut self) -> io::Result<bool> {
        Ok(self.stream.fill_buf()?.is_empty())
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Response {
    /// The first header with this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The error code in the body; empty if there is none.
    pub fn code(&self) -> String {
        self.json().pointer("/error/code").and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// The body of a push of a one-chunk message.
pub fn push_body(recipient: &str, message: u128, payload: &[u8]) -> Value {
    json!({
        "recipient": recipient,
        "message_id": message_id(message),
        "ciphertext_b64": STANDARD.encode(payload),
        "meta": {"kind": "opaque", "total_len": payload.len(), "chunk_index": 0, "chunk_count": 1, "sent_ms": 1},
    })
}

/// The body of a pull, as real clients write it.
pub fn pull_body(recipient: &str, cursor: Option<&str>, max: Option<u64>) -> Value {
    json!({"recipient": recipient, "cursor": cursor, "max": max})
}

/// The body of an ack of one-chunk messages.
pub fn ack_body(recipient: &str, messages: &[u128]) -> Value {
    let entries: Vec<Value> = messages.iter().map(|message| item(*message)).collect();
    json!({"recipient": recipient, "ack": entries})
}

/// The item id of the only chunk of a message.
pub fn item(message: u128) -> Value {
    json!({"message_id": message_id(message), "chunk_index": 0})
}

/// A message number as a message id.
pub fn message_id(message: u128) -> String {
    relay_core::MessageId::from_bytes(message.to_be_bytes()).to_string()
}

/// The message number of an item in a page: the reverse of [`message_id`].
pub fn message_of(item: &Value) -> io::Result<u128> {
    let id = item.get("message_id").and_then(Value::as_str).unwrap_or_default();
    let id = relay_core::MessageId::parse(id).map_err(io::Error::other)?;
    Ok(u128::from_be_bytes(*id.as_bytes()))
}
