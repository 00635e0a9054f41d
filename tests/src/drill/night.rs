//! A night with everything that can go wrong: the relay dies, its disk is full, its certificate
//! ends, its directory is lost, an upgrade has to be taken back.

use std::thread::sleep;
use std::time::Duration;

use super::clients::Clients;
use super::lifecycle;
use super::root::{Root, wait_for};
use super::supervisor::Supervisor;

/// What the operator changes first. The clients of the drill are all on one address.
const SETTINGS: &str = "cat >>/etc/relay/relay.toml <<END
min_free_bytes = 67_108_864

[rate_limit]
exempt = [\"127.0.0.1\"]

[server]
drain_seconds = 10
END";

/// The volume of the messages, small enough to fill.
const VOLUME: &str = "mount -t tmpfs -o size=400m tmpfs /var/lib/relay";

/// The relay says only briefly how it is.
const READY: &str = "curl --silent 127.0.0.1:7001/ready";

pub(super) fn run(root: &mut Root, seconds: u64) -> anyhow::Result<()> {
    let phase = Duration::from_secs(seconds);
    lifecycle::install(root)?;
    root.transcript
        .step("Configure and start", "The clients of this drill have an address without a rate limit.");
    root.show(SETTINGS)?;
    root.show(VOLUME)?;
    root.show("relay-bin check-config --config /etc/relay/relay.toml >/dev/null && echo good")?;
    let mut supervisor = Supervisor::start(root)?;
    root.show(READY)?;
    let mut clients = Clients::new("night");
    clients.during(|| rest(phase))?;

    dies(root, &mut supervisor, &mut clients)?;
    full_disk(root, &mut clients, phase)?;
    supervisor = certificates(root, supervisor, &mut clients)?;
    supervisor = loss(root, supervisor, &mut clients, phase)?;
    supervisor = versions(root, supervisor, &mut clients, phase)?;

    root.transcript.step("In the morning", "The relay stops; its store is recounted.");
    supervisor.stop()?;
    root.show("runuser -u relay -- relay-bin verify --config /etc/relay/relay.toml")?;
    let Clients { answered, refused, .. } = clients;
    root.transcript.remark(&format!("{answered} requests were answered, and {refused} refused"));
    root.run("umount /var/lib/relay")?;
    Ok(())
}

fn rest(time: Duration) -> anyhow::Result<()> {
    sleep(time);
    Ok(())
}

fn audit(root: &mut Root, clients: &mut Clients) -> anyhow::Result<()> {
    let said = clients.audit()?;
    root.transcript.remark(&said);
    Ok(())
}

fn dies(root: &mut Root, supervisor: &mut Supervisor, clients: &mut Clients) -> anyhow::Result<()> {
    root.transcript.step("The relay dies", "The supervisor starts it again, as the unit says.");
    clients.during(|| {
        root.show("pkill -KILL -x relay-bin")?;
        let how = supervisor.restart_after_failure(root)?;
        root.transcript.remark(&format!("the relay ended by {how} and was started again"));
        Ok(())
    })?;
    audit(root, clients)
}

fn full_disk(root: &mut Root, clients: &mut Clients, phase: Duration) -> anyhow::Result<()> {
    root.transcript.step(
        "The disk is full",
        "The relay refuses pushes, serves pulls and acks, and goes on by itself when there is space.",
    );
    let refused = clients.refused;
    clients.during(|| {
        root.show("dd if=/dev/zero of=/var/lib/relay/ballast bs=1M 2>&1 | head -1")?;
        wait_until_ready_says(root, "storage_full")?;
        root.show(READY)?;
        rest(phase)?;
        root.show("rm /var/lib/relay/ballast")?;
        wait_until_ready_says(root, "\"ready\"")?;
        root.show(READY)?;
        rest(phase)
    })?;
    anyhow::ensure!(clients.refused > refused, "no push was refused");
    audit(root, clients)
}

fn wait_until_ready_says(root: &Root, answer: &str) -> anyhow::Result<()> {
    let says_so = || root.try_run(READY).is_ok_and(|(_, said)| said.contains(answer)).then_some(());
    wait_for(&format!("/ready says {answer}"), says_so)
}

/// A certificate that clients trust as it is. Both files are replaced at once, as far as files can
/// be.
const CERTIFICATE: &str = "cd /etc/relay/tls && openssl req -x509 -newkey ed25519 -nodes -days 30 -subj /CN=relay \
     -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key.new -out cert.new 2>/dev/null \
     && chown root:relay key.new && chmod 0640 key.new && mv key.new key.pem && mv cert.new cert.pem";

/// Which certificate the relay shows.
const SHOWN: &str =
    "openssl s_client -connect 127.0.0.1:7000 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint";

fn certificates(
    root: &mut Root,
    supervisor: Supervisor,
    clients: &mut Clients,
) -> anyhow::Result<Supervisor> {
    root.transcript.step(
        "Another certificate",
        "The relay serves HTTPS for a while, and takes a new certificate without a restart.",
    );
    root.run("cp /etc/relay/relay.toml /tmp/relay.toml")?;
    root.show("mkdir /etc/relay/tls")?;
    root.show(CERTIFICATE)?;
    root.show("sed -i '/^\\[storage\\]/i mode = \"tls\"\\n[tls]\\ncert_pem_path = \"/etc/relay/tls/cert.pem\"\\nkey_pem_path = \"/etc/relay/tls/key.pem\"\\n' /etc/relay/relay.toml")?;
    let supervisor = supervisor.restart(root)?;
    let former = root.run(SHOWN)?;
    root.show(CERTIFICATE)?;
    supervisor.reload()?;
    root.transcript.remark("systemctl reload relay");
    let is_new = || root.run(SHOWN).ok().filter(|shown| *shown != former);
    wait_for("the relay shows the new certificate", is_new)?;
    root.transcript.remark("the relay shows the new certificate");
    root.show(
        "relay-cli --url https://127.0.0.1:7000 --ca /etc/relay/tls/cert.pem info >/dev/null && echo good",
    )?;
    root.run("cp /tmp/relay.toml /etc/relay/relay.toml")?;
    let supervisor = supervisor.restart(root)?;
    audit(root, clients)?;
    Ok(supervisor)
}

/// Under systemd, the relay may write nowhere else.
const BACKUPS_ALLOWED: &str = "install -d /etc/systemd/system/relay.service.d
printf '[Service]\\nReadWritePaths=/srv/relay-backups\\n' >/etc/systemd/system/relay.service.d/backups.conf";

fn loss(
    root: &mut Root,
    supervisor: Supervisor,
    clients: &mut Clients,
    phase: Duration,
) -> anyhow::Result<Supervisor> {
    root.transcript.step("The directory is lost", "A backup of the running relay, then work that it does not have, then the loss. What was answered before the backup is back.");
    root.show("install -d -o relay -g relay -m 0700 /srv/relay-backups")?;
    root.show(BACKUPS_ALLOWED)?;
    let mut known = clients.clone();
    let mut others = Clients::new("meanwhile");
    others.during(|| {
        root.show("runuser -u relay -- relay-bin backup --with-key /srv/relay-backups/1 --config /etc/relay/relay.toml")?;
        Ok(())
    })?;
    clients.during(|| rest(phase))?;
    supervisor.stop()?;
    root.show("rm -r /var/lib/relay/db")?;
    root.show("runuser -u relay -- relay-bin restore /srv/relay-backups/1 --config /etc/relay/relay.toml")?;
    root.show("runuser -u relay -- relay-bin verify --config /etc/relay/relay.toml")?;
    let supervisor = Supervisor::start(root)?;
    audit(root, &mut known)?;
    *clients = known;
    clients.during(|| rest(phase))?;
    audit(root, clients)?;
    Ok(supervisor)
}

fn versions(
    root: &mut Root,
    mut supervisor: Supervisor,
    clients: &mut Clients,
    phase: Duration,
) -> anyhow::Result<Supervisor> {
    root.transcript.step("An upgrade, and back", "Both restart the relay; clients retry meanwhile.");
    for package in ["relay-newer.deb", "relay.deb"] {
        supervisor = clients.during(|| {
            lifecycle::upgrade(root, package)?;
            let supervisor = supervisor.restart(root)?;
            rest(phase)?;
            Ok(supervisor)
        })?;
        audit(root, clients)?;
    }
    Ok(supervisor)
}
