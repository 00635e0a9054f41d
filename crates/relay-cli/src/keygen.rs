//! `keygen`: a new recipient and what opens it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use relay_client::{Key, Secret};
use serde_json::{Map, Value};

use crate::cli::{KeyKind, KeygenArgs};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(args: &KeygenArgs, output: &Output) -> Result<(), Failure> {
    let send = args.send_lock.then(Secret::generate).transpose()?;
    let lock = send.as_ref().map(Secret::send_lock).unwrap_or_default();
    let mut words = match args.kind {
        KeyKind::Secret => {
            let secret = Secret::generate()?;
            vec![("recipient", secret.recipient() + &lock), ("secret", secret.expose())]
        }
        KeyKind::Key => {
            let key = Key::generate()?;
            vec![("recipient", key.recipient() + &lock), ("private_key", key.expose())]
        }
    };
    words.extend(args.audience.clone().map(|audience| ("audience", audience)));
    words.extend(send.map(|secret| ("send_secret", secret.expose())));
    let lines = words.iter().map(|(word, value)| format!("{word} {value}")).collect::<Vec<_>>().join("\n");
    match &args.out {
        None => output.print(&object(&words), || lines),
        Some(path) => {
            create(path, &lines)?;
            let recipient: Vec<_> = words.into_iter().filter(|(word, _)| *word == "recipient").collect();
            let name = recipient.first().map(|(_, name)| name.clone()).unwrap_or_default();
            output.print(&object(&recipient), || name)
        }
    }
}

fn object(words: &[(&str, String)]) -> Value {
    let fields = words.iter().map(|(word, value)| ((*word).to_owned(), Value::from(value.as_str())));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Writes a new file that only its owner may read.
fn create(path: &Path, lines: &str) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let written = options.open(path).and_then(|mut file| {
        file.write_all(format!("{lines}\n").as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Failure::File(format!("file {}: cannot be written: {error}", path.display())))
}
