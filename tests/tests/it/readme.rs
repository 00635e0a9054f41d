//! The first steps of README.md: the commands run, and the responses are the printed ones. And the
//! commands of docs/api.md.

use std::process::Command;

use relay_tests::Process;
use serde_json::Value;

const README: &str = include_str!("../../../README.md");
const API: &str = include_str!("../../../docs/api.md");

/// Fields that differ from run to run.
const CHANGING: [&str; 3] = ["arrival_ms", "deadline_ms", "next_cursor"];

/// The code block with this number, counted from 1, in this language.
fn block(language: &str, number: usize) -> &'static str {
    let block = README.split(&format!("```{language}\n")).nth(number).unwrap();
    block.split_once("```\n").unwrap().0
}

/// The JSON values in `text`, without the fields that differ.
fn responses(text: &str) -> Vec<Value> {
    let mut responses: Vec<Value> =
        serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect();
    responses.iter_mut().for_each(blank);
    responses
}

fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if CHANGING.contains(&name.as_str()) && !field.is_null() {
                    *field = Value::Null;
                } else {
                    blank(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        _ => {}
    }
}

#[test]
fn the_first_steps_give_the_documented_responses() {
    let directory = tempfile::tempdir().unwrap();
    let relay =
        Process::start(crate::PROGRAM, &["--storage-path", directory.path().to_str().unwrap()]).unwrap();
    let address = relay.base_url.trim_start_matches("http://");
    let commands = block("sh", 2).replace("127.0.0.1:7000", address).replace("curl ", "curl -s ");
    let output = Command::new("sh").arg("-ec").arg(&commands).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    assert_eq!(responses(&stdout), responses(block("json", 1)), "{stderr}");
}

/// The first one stores an item, the second one, a stream without an end, shows it, and the third
/// one deletes it. The fourth one stores another item, and the last one shows it, both in CBOR.
#[test]
fn the_commands_of_the_api_document_work() {
    let directory = tempfile::tempdir().unwrap();
    let relay =
        Process::start(crate::PROGRAM, &["--storage-path", directory.path().to_str().unwrap()]).unwrap();
    let address = relay.base_url.trim_start_matches("http://");
    let commands: Vec<_> =
        API.split("```sh\n").skip(1).map(|block| block.split_once("```\n").unwrap().0).collect();
    let outputs: Vec<Vec<u8>> = commands
        .iter()
        .map(|command| {
            let command = command.replace("127.0.0.1:7000", address).replace("curl ", "curl -s -m 2 ");
            let output = Command::new("sh").arg("-ec").arg(&command).output().unwrap();
            // 28: the time is over.
            assert!(matches!(output.status.code(), Some(0 | 28)), "{command}: {output:?}");
            output.stdout
        })
        .collect();
    let [batch, stream, purge, push, page] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert!(batch.starts_with(br#"{"results":[{"stored":true,"#), "{outputs:?}");
    let event: Value = serde_json::from_slice(stream.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(event["items"][0]["recipient"], "alice");
    assert!(purge.starts_with(br#"{"deleted":1,"#), "{outputs:?}");
    assert!(push.starts_with(br#"{"stored":true,"queue_len":1,"#), "{outputs:?}");
    let page: ciborium::Value = ciborium::from_reader(&page[..]).unwrap();
    let items = page.as_map().unwrap()[0].1.as_array().unwrap();
    assert_eq!((items.len(), items[0].as_map().unwrap()[2].1.as_bytes()), (1, Some(&b"hello".to_vec())));
}
