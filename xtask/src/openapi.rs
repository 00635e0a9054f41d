//! Writes `docs/openapi.json` from the types of the API, by running the test of relay-http that
//! generates it.

use anyhow::bail;
use xshell::{Shell, cmd};

use crate::project_root;

/// # Errors
/// If relay-http does not build, or the file cannot be written.
pub(crate) fn run() -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    let test = "openapi::tests::the_file_is_up_to_date";
    let run =
        cmd!(shell, "cargo test --package relay-http --lib -- --exact {test}").env("WRITE_OPENAPI", "1");
    if !run.read()?.contains("1 passed") {
        bail!("relay-http has no test {test}");
    }
    Ok(())
}
