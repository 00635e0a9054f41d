//! Sends a file: `cargo run -p relay-client --example send_file -- URL RECIPIENT FILE`.

use relay_client::{Client, Options};
use tokio::fs::File;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(recipient), Some(path)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: send_file URL RECIPIENT FILE".into());
    };
    let client = Client::new(&url, Options::default())?;
    let file = File::open(path).await?;
    let len = file.metadata().await?.len();
    let pushed = client.push_reader(recipient, file, len).kind("attachment").await?;
    println!("sent {len} bytes as message {}", pushed.message_id);
    Ok(())
}
