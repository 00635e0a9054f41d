//! Writes `docs/openapi.json` anew from the types of the wire. A test of relay-http does it, since
//! the types describe themselves in tests alone; here it is only asked to.

use xshell::{Shell, cmd};

use crate::project_root;

/// # Errors
/// If relay-http does not build, or the file cannot be written.
pub(crate) fn run() -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    let test = "openapi::tests::the_file_is_what_the_types_say";
    cmd!(shell, "cargo test --package relay-http --lib -- --exact {test}").env("WRITE_OPENAPI", "1").run()?;
    Ok(())
}
