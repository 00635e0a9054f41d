//! What a unit of systemd says about its service, as far as the drill does it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

/// The settings of a service.
#[derive(Debug)]
pub(super) struct Unit {
    settings: BTreeMap<String, String>,
}

impl Unit {
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let settings = lines.filter_map(|line| line.split_once('='));
        Self { settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect() }
    }

    fn get(&self, key: &str) -> anyhow::Result<&str> {
        self.settings.get(key).map(String::as_str).with_context(|| format!("the unit says no {key}="))
    }

    /// The service says itself when it is ready.
    pub(super) fn notifies(&self) -> bool {
        self.get("Type").is_ok_and(|kind| kind.starts_with("notify"))
    }

    /// The command of the service, as a line of shell that becomes it.
    pub(super) fn start(&self) -> anyhow::Result<String> {
        Ok(format!(
            "umask {}; ulimit -n {} 2>/dev/null; exec setpriv --reuid={} --regid={} --clear-groups --no-new-privs --bounding-set=-all \
             --inh-caps=-all {}",
            self.get("UMask")?,
            self.get("LimitNOFILE")?,
            self.get("User")?,
            self.get("Group")?,
            self.get("ExecStart")?
        ))
    }

    /// Makes the directory that systemd makes before it starts the service.
    pub(super) fn state_directory(&self) -> anyhow::Result<String> {
        let (user, group) = (self.get("User")?, self.get("Group")?);
        let (name, mode) = (self.get("StateDirectory")?, self.get("StateDirectoryMode")?);
        Ok(format!("install --directory --owner {user} --group {group} --mode {mode} /var/lib/{name}"))
    }

    /// Whether a service that has failed with this code, or by a signal, is started again.
    pub(super) fn restarts_after(&self, code: Option<i32>) -> anyhow::Result<bool> {
        let prevented = self.get("RestartPreventExitStatus")?;
        let is_prevented = code.is_some_and(|code| prevented.split(' ').any(|it| it == code.to_string()));
        Ok(self.get("Restart")? == "on-failure" && code != Some(0) && !is_prevented)
    }

    pub(super) fn restart_delay(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_secs(self.get("RestartSec")?.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_the_drill_needs() {
        let unit = Unit::parse(include_str!("../../../deploy/relay.service"));
        assert!(unit.start().unwrap().contains("--reuid=relay --regid=relay"));
        assert!(unit.state_directory().unwrap().ends_with("--mode 0700 /var/lib/relay"));
        let restarts =
            [None, Some(0), Some(1), Some(70), Some(2), Some(78)].map(|it| unit.restarts_after(it).unwrap());
        assert_eq!(restarts, [true, false, true, true, false, false]);
        assert!(unit.restart_delay().unwrap() > Duration::ZERO);
    }
}
