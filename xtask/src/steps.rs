//! Runs cargo commands one after another, times each, and stops at the first that fails.
//!
//! A step is plain data, so the printed command is exactly what was run.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use xshell::{Shell, cmd};

/// One call of cargo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// A word or two.
    pub(crate) name: &'static str,
    /// Variables that are set for this step alone.
    pub(crate) env: &'static [(&'static str, &'static str)],
    /// The arguments of cargo, separated by spaces.
    pub(crate) args: &'static str,
}

/// The command as one would type it in a shell.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.env {
            write!(f, "{name}='{value}' ")?;
        }
        write!(f, "cargo {}", self.args)
    }
}

impl Step {
    fn run(&self, shell: &Shell) -> xshell::Result<()> {
        let args = self.args.split_whitespace();
        cmd!(shell, "cargo {args...}").envs(self.env.iter().copied()).quiet().run()
    }
}

/// Runs the steps in order, and prints the duration of each, also after a failure.
///
/// # Errors
/// The first step that fails, with the command that repeats it. Later steps are not run.
pub(crate) fn run_all(shell: &Shell, steps: &[Step]) -> anyhow::Result<()> {
    let mut times = Vec::with_capacity(steps.len());
    let mut outcome = Ok(());
    for step in steps {
        println!("\n== {}: {step}", step.name);
        let (result, elapsed) = timed(|| step.run(shell));
        println!("== {}: {}", step.name, seconds(elapsed));
        times.push((step.name, elapsed));
        if result.is_err() {
            // The command has printed the reason.
            outcome = Err(anyhow!("{} failed; repeat it with\n    {step}", step.name));
            break;
        }
    }
    println!("\n{}", summary(&times));
    outcome
}

#[expect(
    clippy::disallowed_methods,
    reason = "a stopwatch for the developer; no rule of the relay hangs on it"
)]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn summary(times: &[(&str, Duration)]) -> String {
    let total = times.iter().map(|(_, elapsed)| *elapsed).sum();
    let line = |name: &str, elapsed| format!("{name:<24}{:>10}\n", seconds(elapsed));
    times.iter().map(|(name, elapsed)| line(name, *elapsed)).chain([line("total", total)]).collect()
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Step = Step { name: "version", env: &[], args: "--version" };
    const BROKEN: Step = Step { name: "broken", env: &[("COLOUR", "deep red")], args: "no-such-command" };

    #[test]
    fn a_failing_step_names_the_command_that_repeats_it() {
        let shell = Shell::new().unwrap();
        run_all(&shell, &[VERSION]).unwrap();
        let error = run_all(&shell, &[VERSION, BROKEN]).unwrap_err().to_string();
        assert_eq!(error, "broken failed; repeat it with\n    COLOUR='deep red' cargo no-such-command");
    }

    #[test]
    fn the_summary_ends_with_the_sum() {
        let times = [("fmt", Duration::from_millis(1_500)), ("clippy", Duration::from_secs(60))];
        let lines = summary(&times);
        let words: Vec<Vec<_>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["fmt", "1.5", "s"], ["clippy", "60.0", "s"], ["total", "61.5", "s"]]);
    }
}
