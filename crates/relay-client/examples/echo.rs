//! A bot that sends every message back: `cargo run -p relay-client --example echo -- URL`. A
//! message begins with the name of whoever wants the answer, as the example `chat` writes it.

use relay_client::{Client, Credentials, Options, Secret, Transport};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("usage: echo URL")?;
    let client = Client::new(&url, Options::default())?;
    let secret = Secret::generate()?;
    let own = secret.recipient();
    println!("the bot is {own}");

    let mut deliveries = client.deliveries(&*own, Credentials::secret(&secret), Transport::Wait);
    while let Some(message) = deliveries.next().await {
        let message = message?;
        let text = String::from_utf8_lossy(&message.payload);
        if let Some((name, text)) = text.split_once(' ') {
            // The id of the question: if the bot ends before the ack, the answer is sent once.
            let answer = client.push(name, format!("{own} {text}")).kind("chat");
            if let Err(error) = answer.message_id(message.message_id).await {
                eprintln!("no answer: {error}");
            }
        }
        message.ack().await?;
    }
    Ok(())
}
