//! The first steps of README.md: the commands run, and the responses are the printed ones.

use std::process::Command;

use relay_tests::Process;
use serde_json::Value;

const README: &str = include_str!("../../../README.md");

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
