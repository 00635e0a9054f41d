//! Help, completions and the manual page.

use crate::support::succeeds;

const COMMANDS: [&str; 11] =
    ["keygen", "push", "pull", "watch", "ack", "purge", "info", "demo", "bench", "completions", "man"];

#[test]
fn help_lists_the_exit_codes_and_every_command_has_an_example() {
    let help = succeeds("", &["--help"]).stdout;
    for text in ["  3   the relay refused", "  5   the relay cannot be reached", "RELAY_SECRET"] {
        assert!(help.contains(text), "{text}: {help}");
    }
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let help = succeeds("", &[command, "--help"]).stdout;
        assert!(help.contains("Example:\n"), "{command}: {help}");
    }
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = succeeds("", &["completions", shell]).stdout;
        assert!(text.contains("relay-cli") && text.contains("purge"), "{shell}");
    }
}

#[test]
fn the_manual_page_has_a_section_for_each_command() {
    let page = succeeds("", &["man"]).stdout;
    assert!(page.contains(".TH relay-cli 1"), "{page}");
    for command in COMMANDS {
        assert!(page.contains(&format!(".SH COMMAND {}\n", command.to_uppercase())), "{command}");
    }
}
