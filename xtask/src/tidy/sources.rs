//! What rustfmt and clippy do not check in a Rust file: it opens with its purpose, its comments are
//! wrapped, it is short enough to read, no test is ignored, and nothing is left undone.

use super::{Finding, files::File};

/// The widest comment; rustfmt limits the width of code only.
const COMMENT_COLUMNS: usize = 100;

/// The longest file. Longer ones do several things.
const LINES_MAX: usize = 400;

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let sources = files.iter().filter(|file| file.has_extension("rs"));
    sources.flat_map(|file| [whole(file), comments(file), lines(file)].into_iter().flatten()).collect()
}

fn whole(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !file.text.starts_with("//!") {
        let message = "the file does not say what it is for; begin it with a `//!` comment";
        findings.push(Finding::new(&file.path, 1, message));
    }
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        let message = format!("the file has {lines} lines, over {LINES_MAX}; split it by what it does");
        findings.push(Finding::new(&file.path, 1, message));
    }
    findings
}

/// Comments that are too wide. Tables and examples may be.
fn comments(file: &File) -> Vec<Finding> {
    let (mut findings, mut is_example) = (Vec::new(), false);
    for (index, line) in file.text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_example = false;
            continue;
        };
        let text = comment.trim_start_matches(['/', '!']).trim_start();
        if text.starts_with("```") {
            is_example = !is_example;
        } else if !is_example && !text.starts_with('|') && line.chars().count() > COMMENT_COLUMNS {
            let message = format!("the comment is wider than {COMMENT_COLUMNS} columns; wrap it");
            findings.push(Finding::new(&file.path, index + 1, message));
        }
    }
    findings
}

fn lines(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for (text, message) in forbidden() {
            if line.contains(&text) {
                findings.push(Finding::new(&file.path, index + 1, format!("{text}: {message}")));
            }
        }
    }
    findings
}

/// In pieces, so that this file does not find itself.
fn forbidden() -> [(String, &'static str); 3] {
    let ignored = "no test is ignored; make it run, or run it with RUN_SLOW_TESTS";
    let unfinished = "finish it, or file an issue";
    [(["#[ign", "ore"], ignored), (["FIX", "ME"], unfinished), (["TO", "DO:"], unfinished)]
        .map(|(pieces, message)| (pieces.concat(), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings in a file with these lines below its header.
    fn messages(body: &str) -> Vec<String> {
        let text = format!("//! A file.\n{body}");
        check(&[File { path: "a.rs".to_owned(), text }]).iter().map(ToString::to_string).collect()
    }

    fn check_one(body: &str, line: usize, part: &str) {
        let found = messages(body);
        let begins = format!("a.rs:{line}: ");
        assert!(
            matches!(&*found, [only] if only.starts_with(&begins) && only.contains(part)),
            "{body:?}: {found:?}"
        );
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        let file = |path: &str| File { path: path.to_owned(), text: "fn main() {}\n//! Late.\n".to_owned() };
        let found = check(&[file("a.rs"), file("a.sh")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().starts_with("a.rs:1: the file does not say"), "{found:?}");
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(messages(&"x\n".repeat(LINES_MAX - 1)), [""; 0]);
        check_one(&"x\n".repeat(LINES_MAX), 1, "has 401 lines");
    }

    #[test]
    fn a_wide_comment_is_found() {
        let wide = "word ".repeat(20);
        check_one(&format!("    // {wide}end\n"), 2, "wider than 100");
        check_one(&format!("/// ```\n/// {wide}end\n/// ```\n/// {wide}end\n"), 5, "wider than 100");
        let fits = format!("// {}\n", "x".repeat(97));
        let passes =
            [&*fits, &format!("/// | {wide}end |\n"), &format!("fn f() {{}} // {wide}end\n")].concat();
        assert_eq!(messages(&passes), [""; 0]);
    }

    #[test]
    fn unfinished_work_and_ignored_tests_are_found() {
        for (text, message) in forbidden() {
            check_one(&format!("fn f() {{\n    {text} later\n}}\n"), 3, message);
        }
    }
}
