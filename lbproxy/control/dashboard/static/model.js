// What is known of the daemon, from snapshots and what came after them.
//
// Durations in a snapshot count from its moment: whoever shows one adds how long ago the snapshot came (`age`). Charts
// have a point for every STEP_S seconds; from the second-by-second rates a point is the mean of its seconds.

export const WINDOW_S = 600;
const STEP_S = 5;
const MOST_EVENTS = 200;
const RECENT = 10; // seconds over which the verdict looks at errors
const LINES = ["rps", "error_ratio", "p50", "p99", "saturation", "queue"];

const empty = () => ({ t: [], ...Object.fromEntries(LINES.map((name) => [name, []])) });
const mean = (values) => {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
};

export class Model {
  constructor(now = () => performance.now() / 1000) {
    this.now = now;
    this.status = null;
    this.at = 0;
    this.pools = [];
    this.byName = new Map();
    this.rates = new Map();
    this.events = [];
    this.version = 0;
    this.t = null; // the daemon's clock in the last rates
  }

  // Seconds since an object came.
  age(thing) {
    return this.now() - (thing.at ?? this.at);
  }

  // The daemon's clock, as far as it is known.
  clock() {
    return this.t === null ? Date.now() / 1000 : this.t + Math.min(this.now() - this.tAt, 60);
  }

  apply(kind, data) {
    this.version += 1;
    if (kind === "state") this.setState(data, true);
    else if (kind === "status") this.setStatus(data);
    else if (kind === "servers") this.setServers(data);
    else if (kind === "rates") this.setRates(data);
    else if (kind === "event") this.addEvent(data);
  }

  setState(data, isWhole) {
    const before = this.byName;
    this.status = data;
    this.at = this.now();
    this.pools = data.pools.map((pool) => {
      const old = before.get(pool.name);
      const servers = new Map(pool.servers.map((server) => [server.name, { ...server, at: this.at }]));
      return {
        ...pool,
        servers,
        at: this.at,
        rates: old ? old.rates : null,
        recent: old && !isWhole ? old.recent : [],
        history: (isWhole && data.history && data.history[pool.name]) || (old && !isWhole ? old.history : empty()),
        open: old && !isWhole ? old.open : [],
      };
    });
    this.byName = new Map(this.pools.map((pool) => [pool.name, pool]));
    if (data.recent) this.events = data.recent.slice(-MOST_EVENTS);
  }

  setServers(data) {
    const at = this.now();
    if (data.rate_limits) this.status.rate_limits = data.rate_limits;
    for (const told of data.pools) {
      const pool = this.byName.get(told.name);
      if (!pool) continue;
      const { servers, ...rest } = told;
      Object.assign(pool, rest, { at });
      for (const server of servers) this.setServer(pool, server);
    }
  }

  // One that is not known is left out: a new state is on its way.
  setServer(pool, server) {
    this.version += 1;
    if (pool.servers.has(server.name)) pool.servers.set(server.name, { ...server, at: this.now() });
  }

  setRates(data) {
    this.t = data.t;
    this.tAt = this.now();
    this.rates = new Map(Object.entries(data.servers));
    for (const [name, rates] of Object.entries(data.pools)) {
      const pool = this.byName.get(name);
      if (!pool) continue;
      pool.rates = rates;
      pool.inflight = rates.inflight;
      pool.recent = [...pool.recent.slice(1 - RECENT), rates];
      this.chart(pool, data.t, rates);
    }
  }

  chart(pool, t, rates) {
    pool.open.push(rates);
    const { history } = pool;
    const last = history.t.at(-1);
    if (last !== undefined && t - last < STEP_S) return;
    history.t.push(t);
    for (const name of LINES) history[name].push(mean(pool.open.map((one) => one[name])));
    pool.open = [];
    while (history.t.length && history.t[0] < t - WINDOW_S - STEP_S) {
      for (const name of ["t", ...LINES]) history[name].shift();
    }
  }

  addEvent(event) {
    this.events = [...this.events.slice(1 - MOST_EVENTS), event];
  }

  // The status alone: rates are the differences of its counters, and events are what differs.
  setStatus(status) {
    const before = this.byName;
    const elapsed = this.now() - this.at;
    const isSame = this.status !== null && status.uptime > this.status.uptime && elapsed < 30;
    this.setState(status, !isSame);
    if (!isSame) {
      this.t = Date.now() / 1000;
      this.tAt = this.now();
      return;
    }
    const rates = { t: Date.now() / 1000, pools: {}, servers: {} };
    for (const pool of this.pools) {
      const sum = { requests: 0, errors: 0, slots: 0 };
      for (const server of pool.servers.values()) {
        const old = before.get(pool.name)?.servers.get(server.name);
        if (old && old.state !== server.state) this.addEvent(flip(rates.t, pool, old, server));
        const requests = Math.max(0, server.requests - (old ? old.requests : server.requests));
        const errors = Math.max(0, server.errors - (old ? old.errors : server.errors));
        rates.servers[`${pool.name}/${server.name}`] = {
          rps: requests / elapsed, error_ratio: requests ? Math.min(1, errors / requests) : 0, ttfb_p50: null,
        };
        sum.requests += requests;
        sum.errors += errors;
        if (server.used) sum.slots += server.max_inflight || Infinity;
      }
      const slots = Number.isFinite(sum.slots) && sum.slots ? sum.slots : null;
      rates.pools[pool.name] = {
        rps: sum.requests / elapsed,
        errors: sum.errors / elapsed,
        error_ratio: sum.requests ? Math.min(1, sum.errors / sum.requests) : 0,
        p50: null, p99: null, p999: null,
        saturation: slots ? pool.inflight / slots : null,
        queue: pool.queue.depth, inflight: pool.inflight, slots,
      };
    }
    this.setRates(rates);
  }

  // Requests and errors per second of a pool over the last seconds.
  recently(pool) {
    const sum = (name) => pool.recent.reduce((total, one) => total + (one[name] || 0), 0);
    const n = pool.recent.length || 1;
    return { rps: sum("rps") / n, errors: sum("errors") / n, n: sum("rps") };
  }
}

function flip(t, pool, old, server) {
  const why = server.why ? ` (${server.why})` : "";
  const text = `${server.name} is ${server.state}${why}, was ${old.state}`;
  return { t, kind: "flip", pool: pool.name, server: server.name, text, old: old.state, new: server.state };
}
