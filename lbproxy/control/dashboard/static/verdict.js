// Is all well, and if not, what is not and why: one sentence, and a list with the worst first.
//
// Levels: `bad`, requests fail or will; `warn`, it serves, and somebody should look; `note`, as somebody wanted it or as
// it happens; `ok`. Servers that are out for the same reason are one line, however many they are.

import { lasting, percent, plural, rate } from "./words.js";

const RANK = { bad: 0, warn: 1, note: 2 };
const STATES = {
  down: ["warn", "down"],
  ejected: ["warn", "ejected"],
  unresolved: ["warn", "without an address"],
  probing: ["note", "tried out with one request after an ejection"],
  busy: ["note", "busy: its checks time out while its requests go on"],
  drain: ["note", "drained"],
  maint: ["note", "in maintenance"],
};
const NAMED = 3;
const BAD_ERRORS = 0.05;
const SOME_ERRORS = 0.01;
const FEWEST = 20; // requests of the last seconds below which a share of errors says little
const FULL = 0.9;

export const levelOf = (server) => (STATES[server.state] || ["ok"])[0];

export function verdict(model) {
  const { status, pools } = model;
  const problems = [];
  if (status.state === "draining") {
    problems.push({ level: "bad", short: "lbproxy is stopping",
      text: "lbproxy is stopping: it takes no new connections, and ends when its requests are done." });
  } else if (status.state === "starting") {
    problems.push({ level: "warn", short: "lbproxy is starting", text: `lbproxy is starting: ${status.reason || "not ready yet"}.` });
  }
  for (const pool of pools) problems.push(...ofPool(model, pool));
  if (status.state === "running" && !status.ready && !problems.some((problem) => problem.level === "bad")) {
    problems.unshift({ level: "bad", short: "/readyz says not ready", text: `/readyz says not ready: ${status.reason}.` });
  }
  problems.sort((a, b) => RANK[a.level] - RANK[b.level]);
  const bad = problems.filter((problem) => problem.level === "bad");
  const warn = problems.filter((problem) => problem.level === "warn");
  if (bad.length) {
    const more = bad.length > 1 ? `, and ${plural(bad.length - 1, "more problem")}` : "";
    return { level: "bad", title: `${bad[0].short}${more}`, problems };
  }
  if (warn.length) {
    const title = `Serving, but ${warn.length === 1 ? warn[0].short : `${warn.length} things need a look`}`;
    return { level: "warn", title, problems };
  }
  return { level: "ok", title: "All is well", problems };
}

function ofPool(model, pool) {
  const { name } = pool;
  const problems = [];
  const add = (level, text, short) => problems.push({ level, pool: name, text, short });
  if (pool.leaving) return problems;
  if (!pool.servers.size) {
    add("bad", "has no server: clients get 503.", `${name} has no server`);
  } else if (!pool.usable) {
    add("bad", "has no usable server: clients get 503.", `${name} cannot serve`);
  } else if (pool.failing_open) {
    add("warn", "fails open: too few servers pass their checks, so those that were up are used all the same.",
      `${name} fails open`);
  } else if (!pool.ready && pool.reason) add("warn", `${pool.reason}.`, `${name} ${pool.reason}`);
  const { rps, errors, n } = model.recently(pool);
  if (n >= FEWEST && errors / rps >= SOME_ERRORS) {
    const level = errors / rps >= BAD_ERRORS ? "bad" : "warn";
    const share = percent(errors / rps);
    add(level, `has ${share} of its requests failing, ${rate(errors)} each second.`, `${name}: ${share} of the requests fail`);
  }
  const { queue, rates } = pool;
  if (queue.depth) {
    const waits = queue.oldest ? `, the oldest for ${lasting(queue.oldest)}` : "";
    const full = queue.size ? queue.depth / queue.size : 0;
    const late = queue.oldest && queue.timeout ? queue.oldest / queue.timeout : 0;
    const of = queue.size ? ` of at most ${queue.size}` : "";
    const level = full >= FULL || late >= FULL ? "bad" : full >= 0.25 || late >= 0.1 ? "warn" : "note";
    add(level, `is full: ${plural(queue.depth, "request")}${of} ${queue.depth === 1 ? "waits" : "wait"}${waits}.`,
      `${name} is overloaded`);
  } else if (rates && rates.saturation !== null && rates.saturation >= FULL) {
    add("warn", `has ${rates.inflight} of its ${plural(rates.slots, "slot")} taken; the next requests wait.`,
      `${name} is nearly full`);
  }
  for (const known of pool.names || []) {
    if (known.why && known.addresses) add("warn", `cannot look up ${known.host}: ${known.why}; the last good answer stays in use.`,
      `${known.host} cannot be looked up`);
  }
  for (const told of pool.discovery || []) {
    if (told.error) add("warn", `${told.source}: ${told.error}; ${standing(model, pool, told)}.`, `${told.source} has an error`);
  }
  return problems.concat(ofServers(model, pool));
}

// What is gone by while a source of servers can't be asked.
function standing(model, pool, told) {
  if (told.age === null) return "it has not brought a server yet";
  return `its ${plural(told.servers, "server")} of ${lasting(told.age + model.age(pool))} ago ${told.servers === 1 ? "stays" : "stay"} in use`;
}

function ofServers(model, pool) {
  const groups = new Map();
  for (const server of pool.servers.values()) {
    if (!STATES[server.state]) continue;
    if (!groups.has(server.state)) groups.set(server.state, []);
    groups.get(server.state).push(server);
  }
  return [...groups].flatMap(([state, servers]) => {
    const [level, word] = STATES[state];
    if (servers.length <= NAMED) {
      return servers.map((server) => ({
        level, pool: pool.name, server: server.name, text: one(model, server, word), short: `${server.name} is ${word}`,
      }));
    }
    const reasons = new Map();
    for (const server of servers) {
      const why = reasonOf(server, 0).replace(/, next probe .*/, "");
      if (why) reasons.set(why, (reasons.get(why) || 0) + 1);
    }
    const [reason, times] = [...reasons].sort((a, b) => b[1] - a[1])[0] || [];
    const most = reason ? `: ${reason}${times < servers.length ? ` (${times} of them)` : ""}` : "";
    const n = `${servers.length} of ${pool.servers.size} servers`;
    return [{ level, pool: pool.name, filter: state, text: `has ${n} ${word}${most}.`, short: `${n} of ${pool.name} are ${word}` }];
  });
}

// Why a server is as it is. `since` says already for how long; what is still to come was counted when it was told.
export function reasonOf(server, age) {
  return (server.why || "")
    .replace(/^ejected [\d.]+ \S+ ago: /, "")
    .replace(/next probe in ([\d.]+) s\b/, (_, s) => (s - age >= 1 ? `next probe in ${lasting(Number(s) - age)}` : "next probe now"));
}

function one(model, server, word) {
  const since = server.since === null ? "" : ` for ${lasting(server.since + model.age(server))}`;
  const reason = reasonOf(server, model.age(server));
  const [, by] = /^(?:drained|in maintenance)( by .*)/.exec(reason) || [null, ""];
  const why = by || !reason ? "" : `: ${reason}`;
  const rest = ["drain", "maint"].includes(server.state) && server.inflight ? `, with ${server.inflight} still in flight` : "";
  return `is ${word}${by}${since}${why}${rest}.`;
}
