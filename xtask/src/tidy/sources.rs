//! How a Rust file is written: it opens with its purpose, leaves nothing undone, and gives a reason
//! for each exception.
//!
//! It reads the text and knows no syntax beyond attributes; rustfmt and clippy hold the rest.

use super::{
    Finding,
    files::{File, line_at},
};

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let sources = files.iter().filter(|file| file.has_extension("rs"));
    sources
        .flat_map(|file| [opening(file), comments(file), lines(file), exceptions(file)].into_iter().flatten())
        .collect()
}

fn opening(file: &File) -> Vec<Finding> {
    let message = "the file does not say what it is for; open it with a line of `//!`";
    if file.text.starts_with("//!") { Vec::new() } else { vec![Finding::new(&file.path, 1, message)] }
}

/// How wide a comment may be; rustfmt holds the code.
const COMMENT_COLUMNS: usize = 100;

/// Comments that are too wide. Tables and examples are not wrapped.
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
        let mut find = |message| findings.push(Finding::new(&file.path, index + 1, message));
        if line.ends_with([' ', '\t']) {
            find("blanks at the end of the line; take them out".to_owned());
        }
        if line.contains('\t') {
            find("a tab; write blanks, or \\t in a string".to_owned());
        }
        for word in unfinished() {
            if has_word(line, &word) {
                find(format!("{word} is left; finish it, or write what is missing where the team plans"));
            }
        }
    }
    findings
}

/// In pieces, so that this file does not find itself.
fn unfinished() -> [String; 3] {
    [["todo", "!"], ["FIX", "ME"], ["XX", "X"]].map(|pieces| pieces.concat())
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |neighbour: Option<char>| neighbour.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let (before, rest) = line.split_at(at);
        let after = rest.strip_prefix(word).and_then(|after| after.chars().next());
        !is_part(before.chars().next_back()) && !is_part(after)
    })
}

/// Lints that are turned off without a reason, and tests that are left out.
fn exceptions(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, attribute) in attributes(&file.text) {
        let mut find = |message| findings.push(Finding::new(&file.path, line, message));
        let sets = |name| {
            if attribute.starts_with("cfg_attr") {
                has_word(attribute, name)
            } else {
                path(attribute) == name
            }
        };
        if (sets("allow") || sets("expect")) && !has_reason(attribute) {
            find("a lint is turned off without a reason; add `reason = \"...\"`");
        }
        if sets("ignore") {
            find("a test is left out; make it run, or let it ask for RUN_SLOW_TESTS");
        }
    }
    findings
}

/// The insides of all attributes outside line comments, each with the line where it begins.
fn attributes(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('[') {
        let (before, bracket) = text.split_at(at);
        let line_start = before.rfind('\n').map_or(before, |end| before.split_at(end).1);
        if before.ends_with(['#', '!'])
            && before.trim_end_matches('!').ends_with('#')
            && !line_start.contains("//")
        {
            found.push((line_at(text, at), inside(bracket)));
        }
    }
    found
}

/// What stands between the bracket that opens this text and the one that closes it; brackets in
/// strings do not count.
fn inside(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            '[' if !in_string => depth += 1,
            ']' if !in_string => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.split_at(at).0.trim_start_matches('[').trim();
        }
    }
    text
}

/// The name of an attribute: `allow` of `allow(dead_code)`.
fn path(attribute: &str) -> &str {
    attribute.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap_or_default()
}

fn has_reason(attribute: &str) -> bool {
    let text = attribute.split_once("reason").map(|(_, rest)| rest.trim_start());
    text.and_then(|rest| rest.strip_prefix('=')).is_some_and(|rest| rest.trim_start().starts_with('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings in a file with these lines under its opening; `@` stands for `#`, so that this
    /// file is itself tidy.
    fn messages(body: &str) -> Vec<String> {
        let text = format!("//! A file.\n{}", body.replace('@', "#"));
        check(&[File { path: "a.rs".to_owned(), text }]).iter().map(ToString::to_string).collect()
    }

    fn check_one(body: &str, line: usize, part: &str) {
        let found = messages(body);
        assert_eq!(found.len(), 1, "{body:?}: {found:?}");
        assert!(
            found[0].starts_with(&format!("a.rs:{line}: ")) && found[0].contains(part),
            "{body:?}: {found:?}"
        );
    }

    #[test]
    fn a_tidy_file_passes() {
        let found = messages(
            "@![allow(clippy::panic, reason = \"tests\")]\n\n@[expect(\n    dead_code,\n    reason = \"see [1]\"\n)]\n\
             fn todo() {}\n@[derive(Debug)]\nstruct XXXL; // @[allow(dead_code)] would need a reason\n@[should_panic(expected = \"x\")]\n\
             @[cfg_attr(test, allow(dead_code, reason = \"tests\"))]\n",
        );
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        let file = |path: &str| File { path: path.to_owned(), text: "fn main() {}\n//! Late.\n".to_owned() };
        let found = check(&[file("a.rs"), file("a.sh")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].to_string().starts_with("a.rs:1: the file does not say what it is for"),
            "{found:?}"
        );
    }

    #[test]
    fn blanks_and_tabs_are_found() {
        check_one("fn f() {} \n", 2, "blanks at the end");
        check_one("\n//\ta\n", 3, "a tab");
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
    fn unfinished_work_is_found() {
        for word in unfinished() {
            check_one(&format!("fn f() {{\n    {word}(1) // later\n}}\n"), 3, &word);
        }
    }

    #[test]
    fn an_exception_without_a_reason_is_found() {
        check_one("@[allow(dead_code)]\n", 2, "without a reason");
        check_one("@![expect(dead_code)]\n", 2, "without a reason");
        check_one("fn f(@[allow(unused)] a: u8) {}\n", 2, "without a reason");
        check_one("\n@[allow(\n    dead_code\n)]\nconst A: &str = \"reason = \";\n", 3, "without a reason");
        check_one("@[cfg_attr(test, allow(dead_code))]\n", 2, "without a reason");
    }

    #[test]
    fn a_test_that_is_left_out_is_found() {
        check_one("@[test]\n@[ignore]\n", 3, "left out");
        check_one("@[ignore = \"slow\"]\n", 2, "left out");
        check_one("@[cfg_attr(miri, ignore)]\n", 2, "left out");
    }
}
