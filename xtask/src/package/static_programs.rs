//! Programs that need no library of the system: built, tried where there is nothing else, and
//! packed.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use xshell::{Shell, cmd};

use super::{PROGRAMS, VERSION};

/// Static, and random numbers from the kernel alone: a static program does not find out by itself
/// whether the kernel has this call, and would need /dev/urandom.
const FLAGS: &str = "-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\"";

/// Builds the programs so that they need no library of the system, in a directory of their own.
///
/// # Errors
/// If they do not build, or need a library all the same.
pub(super) fn build(shell: &Shell, debug: bool, host: &str) -> anyhow::Result<PathBuf> {
    ensure!(host.ends_with("-linux-gnu"), "static programs are built for Linux with glibc, not for {host}");
    // With a target of its own, the flags do not reach build scripts and macros, which cannot be
    // static.
    let _flags = shell.push_env("RUSTFLAGS", FLAGS);
    let directory = super::build(shell, debug, &["--target", host, "--target-dir", "target/static"])?;
    for program in PROGRAMS {
        let path = directory.join(program);
        let output = cmd!(shell, "ldd {path}").quiet().ignore_status().output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let is_static = ["statically linked", "not a dynamic executable"].iter().any(|it| said.contains(it));
        ensure!(is_static, "{program} is not static; ldd says: {}", said.trim());
    }
    try_in_empty_root(shell, &directory)?;
    Ok(directory)
}

/// Starts the relay in a root with nothing but the programs and /etc/hosts, and uses it by name.
/// The first argument is that root.
const TRY: &str = "set -eu
cd \"$1\"
ip link set lo up
mkdir etc && echo '127.0.0.1 relay.test' >etc/hosts
chroot . /relay-bin --storage-path /data >log 2>&1 &
echo hello | chroot . /relay-cli --url http://relay.test:7000 push --to alice -
chroot . /relay-cli --url http://relay.test:7000 pull --recipient alice
kill $!
wait $!";

/// # Errors
/// If the programs do not work there.
fn try_in_empty_root(shell: &Shell, programs: &Path) -> anyhow::Result<()> {
    if cmd!(shell, "id -u").quiet().read()? != "0" {
        println!(
            "skipped: the static programs are not tried in an empty root, because only root may do that"
        );
        return Ok(());
    }
    let root = shell.create_temp_dir()?;
    for program in PROGRAMS {
        shell.copy_file(programs.join(program), root.path())?;
    }
    let root = root.path();
    Ok(cmd!(shell, "unshare --net --pid --fork --kill-child sh -c {TRY} sh {root}").run()?)
}

/// Packs the programs with their documents, for a machine without dpkg.
pub(super) fn archive(shell: &Shell, programs: &Path, host: &str, out: &Path) -> anyhow::Result<()> {
    let name = format!("relay-{VERSION}-{host}-static");
    let stage = shell.create_temp_dir()?;
    let directory = stage.path().join(&name);
    shell.create_dir(&directory)?;
    for program in PROGRAMS {
        let (from, to) = (programs.join(program), directory.join(program));
        cmd!(shell, "strip --strip-unneeded -o {to} {from}").run()?;
    }
    for file in ["LICENSE", "CHANGELOG.md", "deploy/relay.toml", "deploy/relay.service"] {
        shell.copy_file(file, &directory)?;
    }
    let (stage, file) = (stage.path(), out.join(format!("{name}.tar.gz")));
    let time = shell.var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| "0".to_owned());
    cmd!(
        shell,
        "tar --create --gzip --file {file} --directory {stage} --sort=name --owner=0 --group=0 --numeric-owner
         --mtime=@{time} {name}"
    )
    .run()?;
    Ok(())
}
