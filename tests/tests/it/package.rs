//! The Debian package: it installs, starts, upgrades, keeps what the operator changed, and leaves
//! nothing behind after a purge.

use std::path::Path;
use std::process::Command;

use relay_tests::{drill, skip, skip_without};

use crate::PROGRAM;

/// The drill goes through the steps, and fails at the first that is not as it should be.
#[test]
fn a_package_installs_upgrades_and_leaves_nothing_behind() {
    // Made with this program, if the whole workspace is.
    let relay_cli = Path::new(PROGRAM).with_file_name("relay-cli");
    if !relay_cli.exists() {
        return skip_without("relay-cli beside the tests (cargo build --workspace --all-features)");
    }
    if let Some(program) = drill::missing_program() {
        return skip_without(program);
    }
    if !drill::may_mount() {
        return skip("this user may not mount");
    }
    let directory = tempfile::tempdir().unwrap();
    let packages = ["0.1.0-1", "0.1.0-2"].map(|version| {
        let mut build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/debian/build.sh"));
        build.args(["--fast", "--version", version, "--relay-bin", PROGRAM, "--relay-cli"]).arg(&relay_cli);
        let output = build.arg("--out").arg(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    let mut drill = Command::new(env!("CARGO_BIN_EXE_relay-bench"));
    drill.args(["drill", "--lifecycle", "--package", &packages[0], "--newer", &packages[1]]);
    let output = drill.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("relay: deleting /var/lib/relay"), "{stdout}");
}
