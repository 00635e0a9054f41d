//! The commands of a drill and what they printed, as Markdown.

use std::fmt::Write as _;

use anyhow::Context as _;

/// Where the document has the transcript.
const BEGIN: &str = "<!-- drill -->\n";
const END: &str = "<!-- end of drill -->";

/// What was done so far. It is printed as it grows.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    text: String,
    /// Whether a block of code is open.
    in_code: bool,
}

impl Transcript {
    /// A heading, and a sentence or two about what follows.
    pub(super) fn step(&mut self, title: &str, about: &str) {
        self.close();
        println!("== {title}");
        let _ = write!(self.text, "**{title}.** {about}\n\n");
    }

    /// A command of the operator, and its output.
    pub(super) fn command(&mut self, command: &str, output: &str) {
        println!("# {command}\n{output}");
        let shown = neutral(output);
        let _ = write!(self.code(), "# {command}\n{shown}");
    }

    /// What happened, in words.
    pub(super) fn remark(&mut self, text: &str) {
        println!("({text})");
        let _ = writeln!(self.code(), "({text})");
    }

    /// The text, in a block of code.
    fn code(&mut self) -> &mut String {
        if !std::mem::replace(&mut self.in_code, true) {
            self.text.push_str("```console\n");
        }
        &mut self.text
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.in_code) {
            self.text.push_str("```\n\n");
        }
    }

    /// The document with this transcript between its markers.
    ///
    /// # Errors
    /// If it has no markers.
    pub(super) fn put_into(&mut self, document: &str) -> anyhow::Result<String> {
        self.close();
        let missing = "the document has no markers of the drill";
        let (before, rest) = document.split_once(BEGIN).context(missing)?;
        let (_, after) = rest.split_once(END).context(missing)?;
        Ok(format!("{before}{BEGIN}\n{}{END}{after}", self.text))
    }
}

/// The output without the log, which begins with times, and without how many files the machine has.
fn neutral(output: &str) -> String {
    let hidden = ["(Reading database", "{\"timestamp\""];
    let is_shown =
        |line: &&str| !hidden.iter().any(|begin| line.starts_with(begin)) && !line.trim().is_empty();
    output.lines().filter(is_shown).fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_replaces_what_is_between_the_markers() {
        let mut transcript = Transcript::default();
        transcript.step("Install", "The package.");
        transcript.command("dpkg -i relay.deb", "(Reading database ... 5 files)\nSetting up relay ...\n");
        transcript.command("date", "{\"timestamp\":\"now\"}\n");
        transcript.remark("it works");
        let document = transcript.put_into("a\n<!-- drill -->\nold\n<!-- end of drill -->\nz\n").unwrap();
        assert_eq!(
            document,
            "a\n<!-- drill -->\n\n**Install.** The package.\n\n```console\n# dpkg -i relay.deb\n\
             Setting up relay ...\n# date\n(it works)\n```\n\n<!-- end of drill -->\nz\n"
        );
        assert!(transcript.put_into("a\n").is_err());
    }
}
