//! Makes what operators install, in target/package: a Debian package, an archive of static
//! programs, a bill of materials, on request a container image, and the checksums of all of them.
//!
//! deploy/debian/build.sh and deploy/image.sh lay out the files; this only builds and calls them.

#[cfg(test)]
mod deployment;
mod notes;
mod sbom;
mod static_programs;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use xshell::{Shell, cmd};

use crate::project_root;

/// What to make.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Package the programs of a debug build: quicker, and only to try the packaging.
    #[arg(long)]
    debug: bool,
    /// The revision of the Debian package, for another package of the same version.
    #[arg(long, default_value_t = 1)]
    revision: u32,
    /// Only the Debian package.
    #[arg(long, conflicts_with = "image")]
    deb: bool,
    /// Also an image for containers, as an OCI archive. Needs root and buildah.
    #[arg(long)]
    image: bool,
    /// Instead: print what CHANGELOG.md says about this version.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["debug", "revision", "deb", "image"])]
    notes: Option<String>,
}

/// The programs that are packaged.
const PROGRAMS: [&str; 2] = ["relay-bin", "relay-cli"];

/// # Errors
/// If something does not build, or a program for packaging is missing or fails.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    if let Some(version) = &flags.notes {
        let changelog = shell.read_file("CHANGELOG.md")?;
        println!("{}", notes::of_version(&changelog, version)?);
        return Ok(());
    }
    // The time of the last change, so that the same sources make the same packages.
    if let Ok(time) = cmd!(shell, "git log -1 --format=%ct").quiet().ignore_stderr().read() {
        shell.set_var("SOURCE_DATE_EPOCH", time);
    }
    let out = project_root().join("target/package");
    shell.remove_path(&out)?;
    shell.create_dir(&out)?;
    let host = host(&shell)?;
    let sbom = out.join(format!("relay-{VERSION}.cdx.json"));
    shell.write_file(&sbom, sbom::of_programs(&shell, &PROGRAMS, &host)?)?;

    debian_package(&shell, flags.debug, flags.revision, &["--sbom".as_ref(), sbom.as_os_str()], &out)?;
    if !flags.deb {
        let programs = static_programs::build(&shell, flags.debug, &host)?;
        static_programs::archive(&shell, &programs, &host, &out)?;
        if flags.image {
            image(&shell, &programs, &out)?;
        }
    }
    checksums(&shell, &out)
}

/// All crates of the workspace have this version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The target that the compiler builds for by itself.
fn host(shell: &Shell) -> anyhow::Result<String> {
    let version = cmd!(shell, "rustc -vV").quiet().read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Builds the programs, and puts them into a package that deploy/debian lays out. Returns its path.
///
/// # Errors
/// If they do not build, or a program for packaging fails.
pub(crate) fn debian_package(
    shell: &Shell,
    debug: bool,
    revision: u32,
    more: &[&OsStr],
    out: &Path,
) -> anyhow::Result<PathBuf> {
    let directory = build(shell, debug, &[])?;
    let [relay_bin, relay_cli] = PROGRAMS.map(|program| directory.join(program));
    let version = format!("{VERSION}-{revision}");
    let fast = debug.then_some("--fast");
    let path = cmd!(
        shell,
        "deploy/debian/build.sh --version {version} --relay-bin {relay_bin} --relay-cli {relay_cli}
         --out {out} {more...} {fast...}"
    )
    .read()?;
    Ok(path.into())
}

/// Returns the directory of the programs.
fn build(shell: &Shell, debug: bool, arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let profile = (!debug).then_some("--release");
    let packages = PROGRAMS.iter().flat_map(|program| ["--package", program]);
    let messages = cmd!(
        shell,
        "cargo build --locked {profile...} {packages...} --message-format=json-render-diagnostics {arguments...}"
    )
    .read()?;
    let executables = cargo_metadata::Message::parse_stream(messages.as_bytes());
    for message in executables {
        if let cargo_metadata::Message::CompilerArtifact(artifact) = message?
            && let Some(path) = artifact.executable
            && let Some(directory) = path.as_std_path().parent()
        {
            return Ok(directory.to_owned());
        }
    }
    anyhow::bail!("cargo build made no program")
}

fn image(shell: &Shell, programs: &Path, out: &Path) -> anyhow::Result<()> {
    let (relay_bin, file) = (programs.join("relay-bin"), out.join(format!("relay-{VERSION}.oci.tar")));
    Ok(cmd!(shell, "deploy/image.sh --relay-bin {relay_bin} --tag relay:{VERSION} --out {file}").run()?)
}

/// Writes SHA256SUMS, which `sha256sum --check` reads, and prints it.
fn checksums(shell: &Shell, out: &Path) -> anyhow::Result<()> {
    let _directory = shell.push_dir(out);
    let mut files = shell.read_dir(".")?;
    files.sort();
    let names = files.iter().filter_map(|path| path.file_name());
    let sums = cmd!(shell, "sha256sum {names...}").quiet().read()?;
    shell.write_file("SHA256SUMS", format!("{sums}\n"))?;
    println!("{sums}");
    Ok(())
}
