//! A chat between two terminals. Each has a secret name, which it prints for the other:
//! `cargo run -p relay-client --example chat -- URL [NAME OF THE OTHER]`. Without the other's name,
//! it waits for a first message, which says who writes.

use relay_client::{Client, Credentials, Message, Options, Secret, Transport};
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: chat URL [NAME OF THE OTHER]")?;
    let mut other = arguments.next();

    let client = Client::new(&url, Options::default())?;
    let secret = Secret::generate()?;
    let own = secret.recipient();
    println!("your name is {own}");
    let mut deliveries = client.deliveries(&*own, Credentials::secret(&secret), Transport::Stream);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            message = deliveries.next() => {
                let Some(message) = message.transpose()? else { break };
                if let Some((name, text)) = parse(&message) {
                    println!("> {text}");
                    other.get_or_insert(name);
                }
                message.ack().await?;
            }
            line = lines.next_line() => match (line?, &other) {
                (None, _) => break,
                (Some(_), None) => println!("(nobody to write to yet)"),
                (Some(text), Some(name)) => {
                    client.push(name, format!("{own} {text}")).kind("chat").await?;
                }
            },
        }
    }
    deliveries.close().await;
    Ok(())
}

/// The name of the other, and the text. An application would encrypt and sign both.
fn parse(message: &Message) -> Option<(String, String)> {
    let text = str::from_utf8(&message.payload).ok()?;
    let (name, text) = text.split_once(' ')?;
    Some((name.to_owned(), text.escape_debug().to_string()))
}
