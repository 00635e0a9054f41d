//! `completions` and `man`: made from the syntax of the command line.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// The completions of a shell.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "relay-bin", &mut text);
    text
}

/// The page of the program, with one section for each command.
pub(crate) fn man() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name().to_uppercase();
        text.extend_from_slice(format!(".SH COMMAND {name}\n").as_bytes());
        let page = clap_mangen::Man::new(command.clone());
        page.render_description_section(&mut text)?;
        page.render_synopsis_section(&mut text)?;
        page.render_options_section(&mut text)?;
        page.render_extra_section(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_the_page_and_in_the_completions() {
        let page = String::from_utf8(man().unwrap()).unwrap();
        let bash = String::from_utf8(completions(Shell::Bash)).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(page.contains(&format!(".SH COMMAND {}\n", name.to_uppercase())), "{name}");
            assert!(bash.contains(&format!("relay__bin,{name})")), "{name}");
        }
        assert!(page.contains("78") && page.contains("Exit codes"), "{page}");
    }
}
