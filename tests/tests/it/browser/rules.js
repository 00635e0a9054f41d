// Evaluates deploy/alerts.test.yaml with the scripts of the dashboard: the same figures, and the same alerts expected.

// The tests in the file: series with their values by minute, and the minutes at which an alert fires or does not.
function parse(yaml) {
  return yaml.split("  - name: ").slice(1).map((test) => {
    const series = [...test.matchAll(/series: '([^']*)', values: "([^"]*)"/g)];
    const rules = [...test.matchAll(/eval_time: (\d+)m(?:, |\n\s+)alertname: (\w+)(, exp_alerts: \[\])?/g)];
    return {
      series: series.map(([, name, values]) => ({ name, values: expand(values) })),
      rules: rules.map(([, minute, name, isNone]) => ({ minute: Number(minute), name, fires: !isNone })),
    };
  });
}

// Prometheus's notation: "1x3" is four times 1, "0+10x3" is 0, 10, 20, 30.
function expand(values) {
  return values.split(" ").flatMap((part) => {
    const [, start, step, times] = /^(-?\d+)([+-]\d+)?x(\d+)$/.exec(part);
    return Array.from({ length: Number(times) + 1 }, (_, index) => Number(start) + index * Number(step ?? 0));
  });
}

// The samples of one relay of a test at a minute, without the labels that Prometheus adds.
function samplesOf(test, instance, minute) {
  const samples = { relay_uptime_seconds: minute * 60 };
  for (const { name, values } of test.series) {
    if (!name.includes(`instance="${instance}"`)) continue;
    const own = name.replace(/job="relay", instance="\w+"(, )?/, "").replace("{}", "").replaceAll('", ', '",');
    samples[own] = values[Math.min(minute, values.length - 1)];
  }
  return samples;
}

// The names of the alerts that fire at a minute.
function firing({ Figures, AlertStates }, test, instance, until) {
  const [figures, states] = [new Figures(), new AlertStates()];
  let judged;
  for (let minute = 0; minute <= until; minute++) {
    const samples = samplesOf(test, instance, minute);
    figures.add({ at_seconds: minute * 60, samples, unready: null });
    judged = states.judge(figures, { now: minute * 60, unixSeconds: minute * 60, isUp: samples.up !== 0 });
  }
  return judged.filter(({ state }) => state === "firing").map(({ name }) => name);
}

// What differs from the file; nothing if all is well.
globalThis.differences = (modules, yaml) => {
  const found = [];
  const tests = parse(yaml);
  for (const test of tests) {
    for (const { minute, name, fires } of test.rules) {
      if (firing(modules, test, "r", minute).includes(name) !== fires) found.push(`${name} at ${minute} min`);
      const wrong = firing(modules, test, "fine", minute);
      if (wrong.length > 0) found.push(`${wrong} at ${minute} min of a relay that is fine`);
    }
  }
  return { found, rules: tests.flatMap(({ rules }) => rules).length };
};
0
