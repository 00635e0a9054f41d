//! No text contains a path of the machine that it was written on, or ends its lines with CR LF.

use super::{Finding, files::File};

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.split('\n').enumerate() {
        for path in machine_paths().iter().filter(|path| line.contains(path.as_str())) {
            let message = format!("{path} is a path of one machine; write it relative to the project");
            findings.push(Finding::new(&file.path, index + 1, message));
        }
        // One finding per file is enough. Seed inputs of fuzzers are bytes, not text.
        if line.ends_with('\r')
            && !file.path.starts_with("fuzz/corpus")
            && !findings.iter().any(|finding| finding.message == CRLF)
        {
            findings.push(Finding::new(&file.path, index + 1, CRLF));
        }
    }
    findings
}

const CRLF: &str = "the line ends with CR LF; save the file with LF";

/// In pieces, so that this file does not find itself.
fn machine_paths() -> [String; 2] {
    [["/wo", "rk/"], ["/tmp/", "target"]].map(|pieces| pieces.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: String) -> Vec<String> {
        check(&[File { path: "a.md".to_owned(), text }]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn paths_that_every_machine_has_pass() {
        assert_eq!(messages("docs/a.md, /etc/relay.toml and /tmp\n".to_owned()), [""; 0]);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        for path in machine_paths() {
            let found = messages(format!("\nsee {path}x\n"));
            assert_eq!(
                found,
                [format!("a.md:2: {path} is a path of one machine; write it relative to the project")]
            );
        }
    }

    #[test]
    fn windows_line_ends_are_found_once() {
        assert_eq!(messages("a\nb\r\nc\r\n".to_owned()), [format!("a.md:2: {CRLF}")]);
    }
}
