//! The life of the package: install, start, change the configuration, upgrade, remove, purge.

use super::root::Root;
use super::supervisor::Supervisor;

/// A change of the operator that every upgrade must keep.
const EDIT: &str = "printf '\\n[server]\\ndrain_seconds = 10\\n' >>/etc/relay/relay.toml";

/// Whether the relay starts with the machine. `systemctl is-enabled` is not on every machine.
const ENABLED: &str = "test -L /etc/systemd/system/multi-user.target.wants/relay.service && echo enabled";

/// What the relay says that it does, with that change.
const EFFECT: &str = "relay-bin check-config --config /etc/relay/relay.toml | grep drain_seconds";

pub(super) fn run(root: &mut Root) -> anyhow::Result<()> {
    install(root)?;
    let supervisor = Supervisor::start(root)?;
    root.run(&format!("grep -q \"^Uid:.$(id -u relay)\" /proc/{}/status", supervisor.id()))?;
    root.expect("echo hello | relay-cli push --to alice - >/dev/null && relay-cli pull --recipient alice --json | grep -c message_id", "1")?;

    root.transcript.step("Upgrade", "The configuration of the operator stays, and so do the messages.");
    root.run(EDIT)?;
    upgrade(root, "relay-newer.deb")?;
    root.expect(EFFECT, "drain_seconds = 10")?;
    let supervisor = supervisor.restart(root)?;
    root.expect("relay-cli pull --recipient alice --json | grep -c message_id", "1")?;
    supervisor.stop()?;
    remove(root)
}

/// Installs the package, and checks the user, the modes and the files.
pub(super) fn install(root: &mut Root) -> anyhow::Result<()> {
    root.transcript.step(
        "Install",
        "The package makes the user, the unit, the configuration and the directory of the messages.",
    );
    root.show("dpkg -i /tmp/relay.deb")?;
    root.expect(
        "stat -c '%A %U:%G %n' /var/lib/relay /etc/relay/relay.toml /usr/bin/relay-bin /usr/bin/relay-cli",
        "drwx------ relay:relay /var/lib/relay\n-rw-r--r-- root:root /etc/relay/relay.toml\n\
         -rwxr-xr-x root:root /usr/bin/relay-bin\n-rwxr-xr-x root:root /usr/bin/relay-cli",
    )?;
    root.expect("getent passwd relay | cut -d: -f1,6,7", "relay:/nonexistent:/usr/sbin/nologin")?;
    root.expect(ENABLED, "enabled")?;
    root.run("relay-bin check-config --config /etc/relay/relay.toml | grep '^path = \"/var/lib/relay/db\"'")?;
    root.run("relay-cli man | head -1 && zcat /usr/share/man/man1/relay-cli.1.gz | head -1")?;
    Ok(())
}

/// Installs another version over the one that is there.
pub(super) fn upgrade(root: &mut Root, package: &str) -> anyhow::Result<()> {
    root.show(&format!("dpkg -i /tmp/{package}"))?;
    let version = root.run(&format!("dpkg-deb --field /tmp/{package} Version"))?;
    root.expect("dpkg-query --show --showformat='${Version}\\n' relay", version.trim_end())
}

/// Removes the package, which leaves the messages, and purges it, which does not.
pub(super) fn remove(root: &mut Root) -> anyhow::Result<()> {
    root.transcript.step(
        "Remove and purge",
        "A removal leaves configuration and messages. A purge deletes them. The user stays.",
    );
    root.show("dpkg --remove relay")?;
    root.expect(
        "ls /usr/bin/relay-bin /var/lib/relay/db/relay.key 2>/dev/null || true",
        "/var/lib/relay/db/relay.key",
    )?;
    root.expect("tail -1 /etc/relay/relay.toml", "drain_seconds = 10")?;
    root.show("dpkg --purge relay")?;
    let left = root.changes("*relay*")?;
    anyhow::ensure!(left.is_empty(), "the purge has left:\n{left}");
    root.expect("ls -d /var/lib/relay /etc/relay 2>/dev/null || true", "")
}
