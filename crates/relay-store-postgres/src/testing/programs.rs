//! The programs of PostgreSQL, the user whom they run as, and a directory that `initdb` has made.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// Whether tests on PostgreSQL are left out, because it is not installed. Says so then.
///
/// # Panics
/// Instead, where `REQUIRE_PROGRAMS` is set, as in CI.
#[expect(clippy::disallowed_methods, reason = "a switch for tests")]
#[must_use]
pub fn is_left_out() -> bool {
    let is_missing = programs().is_none();
    if is_missing {
        assert!(std::env::var_os("REQUIRE_PROGRAMS").is_none(), "PostgreSQL is not installed");
        eprintln!("left out: PostgreSQL is not installed");
    }
    is_missing
}

/// The path of a program of PostgreSQL, if it is installed.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    programs().map(|programs| programs.join(name)).filter(|program| program.is_file())
}

/// A directory that was initialised once for all tests of a user, to be copied.
pub(super) fn template() -> io::Result<PathBuf> {
    let owner = server_user().map_or_else(|| "own".to_owned(), |(user, _)| user.to_string());
    let version = programs().and_then(|bin| bin.to_str()?.split('/').nth(4)).unwrap_or_default();
    let path = std::env::temp_dir().join(format!("relay-postgres-{version}-{owner}"));
    if !path.join("PG_VERSION").is_file() {
        let made = make_template()?;
        // Another test may have been faster.
        if fs::rename(made.path().join("data"), &path).is_err() && !path.join("PG_VERSION").is_file() {
            return Err(io::Error::other("the template cannot be put in its place"));
        }
    }
    Ok(path)
}

fn make_template() -> io::Result<TempDir> {
    let directory = owned_directory()?;
    let data = directory.path().join("data");
    let words =
        ["initdb", "--username=relay", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"];
    run(&words, &data)?;
    let file = data.join("postgresql.conf");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, format!("{text}\ninclude_if_exists = 'test.conf'\n"))?;
    let access =
        "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
    fs::write(data.join("pg_hba.conf"), access)?;
    Ok(directory)
}

pub(super) fn owned_directory() -> io::Result<TempDir> {
    let directory = TempDir::new()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    give_to_server(directory.path())?;
    Ok(directory)
}

/// Runs a program of PostgreSQL on a directory with data.
pub(super) fn run(words: &[&str], data: &Path) -> io::Result<()> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = server_command(program)?;
    let output = command.args(arguments).arg("-D").arg(data).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))))
}

pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("the template cannot be copied")) }
}

pub(super) fn server_command(program: &str) -> io::Result<Command> {
    let programs = programs().ok_or_else(|| io::Error::other("PostgreSQL is not installed"))?;
    Ok(as_server(&programs.join(program)))
}

/// A command that runs as the user of servers.
pub(super) fn as_server(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").process_group(0).stdin(Stdio::null());
    if let Some((user, group)) = server_user() {
        command.uid(user).gid(group);
    }
    command
}

/// A program that is not one of PostgreSQL.
pub(super) fn installed(name: &str) -> Option<PathBuf> {
    let directories = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
    directories.iter().map(|directory| Path::new(directory).join(name)).find(|program| program.is_file())
}

pub(super) fn give_to_server(path: &Path) -> io::Result<()> {
    match server_user() {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// Whom root runs servers as: user and group. Others run them as themselves.
fn server_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        use std::os::unix::fs::MetadataExt as _;
        if fs::metadata("/proc/self").ok()?.uid() != 0 {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        ["postgres:", "nobody:"].iter().find_map(|name| {
            let mut fields = passwd.lines().find(|line| line.starts_with(name))?.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
    })
}

/// The directory of the programs, of the newest version that is installed.
pub(super) fn programs() -> Option<&'static Path> {
    static PROGRAMS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PROGRAMS.get_or_init(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
        let mut bins: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
        bins.retain(|bin| bin.join("initdb").is_file());
        bins.sort_by_key(|bin| bin.to_str().and_then(|bin| bin.split('/').nth(4)?.parse::<u32>().ok()));
        bins.pop()
    });
    found.as_deref()
}

pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Executes statements. Returns what they answer, a line for each row.
///
/// # Errors
/// Those of the system, and of `psql`.
pub fn execute(dsn: &str, statements: &str) -> io::Result<String> {
    let mut command = server_command("psql")?;
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-c", statements]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
