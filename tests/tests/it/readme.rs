//! The first steps of README.md, as a reader would take them: the commands run, and the answers are
//! those that stand there.

use std::process::Command;

use relay_tests::Process;
use serde_json::Value;

const README: &str = include_str!("../../../README.md");

/// What differs from run to run.
const CHANGING: [&str; 3] = ["arrival_ms", "deadline_ms", "next_cursor"];

/// The block of this number, counted from 1, in this language.
fn block(language: &str, number: usize) -> &'static str {
    let block = README.split(&format!("```{language}\n")).nth(number).unwrap();
    block.split_once("```\n").unwrap().0
}

/// The answers, one after the other, without what differs.
fn answers(text: &str) -> Vec<Value> {
    let mut answers: Vec<Value> =
        serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect();
    answers.iter_mut().for_each(blank);
    answers
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
fn the_first_steps_are_answered_as_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let relay =
        Process::start(crate::PROGRAM, &["--storage-path", directory.path().to_str().unwrap()]).unwrap();
    let address = relay.base_url.trim_start_matches("http://");
    let commands = block("sh", 2).replace("127.0.0.1:7000", address).replace("curl ", "curl -s ");
    let ran = Command::new("sh").arg("-ec").arg(&commands).output().unwrap();
    let (said, complaints) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{complaints}");
    assert_eq!(answers(&said), answers(block("json", 1)), "{complaints}");
}
