//! Starts and restarts the relay as its unit says, where no systemd runs.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::root::{Root, wait_for};
use super::unit::Unit;

/// The socket at which the relay says that it is ready.
const NOTIFY_SOCKET: &str = "/run/notify";

/// How long the relay may take to get ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The supervisor of one relay, which is killed with it.
#[derive(Debug)]
pub(super) struct Supervisor {
    unit: Unit,
    /// One for each time that the relay has said that it is ready.
    ready: Receiver<()>,
    child: Child,
}

impl Supervisor {
    /// Starts the installed relay, and waits until it serves.
    pub(super) fn start(root: &Root) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.path("/usr/lib/systemd/system/relay.service"))?;
        let unit = Unit::parse(&text);
        let ready = listen(root)?;
        let child = spawn(root, &unit)?;
        let mut supervisor = Self { unit, ready, child };
        supervisor.wait_until_ready(root)?;
        Ok(supervisor)
    }

    /// The process of the relay.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_ready(&mut self, root: &Root) -> anyhow::Result<()> {
        if self.unit.notifies() {
            return self.wait_for_notification();
        }
        let is_ready = || {
            root.try_run("curl --silent --fail 127.0.0.1:7001/ready")
                .is_ok_and(|(ready, _)| ready)
                .then_some(())
        };
        wait_for("the relay is ready", is_ready)
    }

    fn wait_for_notification(&self) -> anyhow::Result<()> {
        self.ready.recv_timeout(PATIENCE).context("the relay does not say that it is ready")
    }

    /// Sends a signal, given as a name for `kill -s`.
    pub(super) fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill failed");
        Ok(())
    }

    /// `systemctl reload`.
    pub(super) fn reload(&self) -> anyhow::Result<()> {
        self.signal("HUP")?;
        if self.unit.notifies() { self.wait_for_notification() } else { Ok(()) }
    }

    /// `systemctl stop`: the relay must end with code 0.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let status = self.wait_a_while()?;
        anyhow::ensure!(status.success(), "the relay ended with {status}");
        Ok(())
    }

    /// `systemctl restart`, as the package does after an upgrade.
    pub(super) fn restart(self, root: &Root) -> anyhow::Result<Self> {
        self.stop()?;
        Self::start(root)
    }

    /// Waits until the relay fails, and starts it again if the unit says so. Returns how it ended.
    pub(super) fn restart_after_failure(&mut self, root: &Root) -> anyhow::Result<String> {
        let status = self.wait_a_while()?;
        if !self.unit.restarts_after(status.code())? {
            bail!("the unit does not restart a relay that ended with {status}");
        }
        std::thread::sleep(self.unit.restart_delay()?);
        self.child = spawn(root, &self.unit)?;
        self.wait_until_ready(root)?;
        Ok(status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}")))
    }

    fn wait_a_while(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(wait_for("the relay ends", || self.child.try_wait().transpose())??)
    }
}

/// Reads at once whatever the relay says, so that it never waits for the drill.
fn listen(root: &Root) -> anyhow::Result<Receiver<()>> {
    let path = root.path(NOTIFY_SOCKET);
    // The one of an earlier start.
    drop(std::fs::remove_file(&path));
    let socket = UnixDatagram::bind(&path)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666))?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let said = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if said.lines().any(|line| line == "READY=1") && sender.send(()).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

fn spawn(root: &Root, unit: &Unit) -> anyhow::Result<Child> {
    root.run(&unit.state_directory()?)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(root.path("/tmp/relay.log"))?;
    let mut command = root.command("sh");
    command.args(["-c", &unit.start()?]).env("NOTIFY_SOCKET", NOTIFY_SOCKET);
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().context("the relay does not start")
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // The relay may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
