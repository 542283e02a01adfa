// The pools: a card for each with its numbers and charts, and a table of its servers.
//
// Rows are made once and changed where something changed. With many servers the first PAGE of them are in the page,
// problems first, and the rest when somebody asks for more or filters.

import { Chart } from "./chart.js";
import { byId, h, setAttribute, setChildren, setHidden, setText } from "./dom.js";
import { WINDOW_S } from "./model.js";
import { levelOf, reasonOf } from "./verdict.js";
import { NONE, clock, count, lasting, latency, percent, plural, rate } from "./words.js";

const PAGE = 50;
const LATENCY_FRESH_S = 60; // until then a latency is that of now; `lbproxy status` and `top` have the same
const SORT_MS = 5000; // what changes with every request is put in order now and then
const FEW_SERVERS = 8; // up to here there is nothing to filter
const FEW_POOLS = 4; // more of them are closed at first, but for those with problems
const SEVERITY = ["down", "unresolved", "ejected", "probing", "busy", "maint", "drain"];
const HEADS = {
  state: "State", server: "Server", since: "For", load: "In flight", weight: "Weight", rps: "Requests", errors: "Errors", latency: "Latency",
};

const severity = (server) => {
  const at = SEVERITY.indexOf(server.state);
  return at < 0 ? SEVERITY.length : at;
};

export class Pools {
  // onAct(pool, server, what): somebody pressed a button of a server.
  constructor(model, onAct) {
    this.model = model;
    this.onAct = onAct;
    this.cards = new Map();
    this.mayWrite = false;
    this.filter = "";
    this.only = false;
    this.order = "problems";
    const changed = () => {
      this.filter = byId("filter").value.trim().toLowerCase();
      this.only = byId("only").checked;
      this.order = byId("order").value;
      for (const card of this.cards.values()) card.shown = PAGE;
      this.render(true);
    };
    for (const id of ["filter", "only", "order"]) byId(id).addEventListener("input", changed);
  }

  setFilter(text) {
    byId("filter").value = text;
    byId("filter").dispatchEvent(new Event("input"));
  }

  // Shows a pool and, if they are given, a server of it, or those that the filter leaves.
  reveal(pool, filter) {
    const card = this.cards.get(pool);
    if (!card) return;
    card.setOpen(true);
    const row = card.rows.get(filter);
    if (row && row.element.isConnected) {
      row.element.scrollIntoView({ block: "center" });
      row.element.focus({ preventScroll: true });
      return;
    }
    if (filter) this.setFilter(filter);
    card.element.scrollIntoView({ block: "start" });
    card.toggle.focus({ preventScroll: true });
  }

  render(isAsked = false) {
    const { pools } = this.model;
    const total = pools.reduce((sum, pool) => sum + pool.servers.size, 0);
    setHidden(byId("tools"), total <= FEW_SERVERS && !this.filter && !this.only);
    let shown = 0;
    const elements = pools.map((pool) => {
      if (!this.cards.has(pool.name)) this.cards.set(pool.name, new Card(this, pool.name));
      const card = this.cards.get(pool.name);
      shown += card.render(pool, isAsked, pools.length <= FEW_POOLS);
      return card.element;
    });
    for (const name of this.cards.keys()) if (!this.model.byName.has(name)) this.cards.delete(name);
    setChildren(byId("cards"), elements);
    setText(byId("count"), shown === total ? plural(total, "server") : `${count(shown)} of ${plural(total, "server")}`);
  }

  matches(server) {
    if (this.only && levelOf(server) === "ok") return false;
    if (!this.filter) return true;
    return `${server.name} ${server.address} ${server.state} ${server.why}`.toLowerCase().includes(this.filter);
  }

  compare(pool) {
    const rates = (server) => this.model.rates.get(`${pool.name}/${server.name}`) || {};
    const by = {
      problems: (a, b) => severity(a) - severity(b),
      name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
      inflight: (a, b) => b.inflight - a.inflight,
      rps: (a, b) => (rates(b).rps || 0) - (rates(a).rps || 0),
      errors: (a, b) => (rates(b).error_ratio || 0) - (rates(a).error_ratio || 0) || b.errors - a.errors,
      latency: (a, b) => b.latency - a.latency,
    };
    return by[this.order];
  }
}

// A number with a chart below it, and a second line.
class Tile {
  constructor(card, title, names, options) {
    this.value = h("strong");
    this.note = h("span", { class: "note" });
    this.chart = new Chart(names, { windowS: WINDOW_S, ...options });
    this.format = options.format;
    this.title = title;
    const over = (event) => card.point(this.chart.at(event.clientX));
    this.chart.element.addEventListener("pointermove", over);
    this.chart.element.addEventListener("pointerleave", () => card.point(-1));
    const keys = names.length > 1 ? names.map((name) => h("span", { class: `key ${name}` }, name)) : [];
    this.element = h("div", { class: "tile" }, h("h4", {}, title, ...keys), h("p", {}, this.value, " ", this.note), this.chart.element);
    this.index = -1;
  }

  render(value, note, pool, now, marks) {
    this.now = [value, note];
    const known = pool.history[this.chart.names[0]].filter((one) => one !== null && one !== undefined);
    const most = known.length ? `, at most ${this.format(Math.max(...known))}` : "";
    this.chart.draw(pool.history, now, marks, `${this.title} over ten minutes: now ${value}${most}`);
    setHidden(this.element, false);
    this.show();
  }

  point(index) {
    this.index = index;
    this.chart.point(index);
    this.show();
  }

  show() {
    const { history, names } = this.chart;
    const isPast = this.index >= 0 && this.index < history.t.length;
    const [value, note] = isPast
      ? [this.format(history[names[0]][this.index]), `at ${clock(history.t[this.index])}`]
      : this.now || [NONE, ""];
    setText(this.value, value);
    setText(this.note, note);
  }
}

class Card {
  constructor(owner, name) {
    this.owner = owner;
    this.name = name;
    this.rows = new Map();
    this.shown = PAGE;
    this.isOpen = null;
    this.orderKey = "";
    this.sortedAt = 0;
    const id = `pool-${owner.cards.size}-${Math.random().toString(36).slice(2, 8)}`;
    this.toggle = h("button", { type: "button", class: "toggle", "aria-controls": id, onclick: () => this.setOpen(!this.isOpen) }, name);
    this.strategy = h("span", { class: "muted" });
    this.usable = h("span", { class: "chip" });
    this.short = h("span", { class: "muted short" });
    this.reason = h("p", { class: "reason", hidden: true });
    this.tiles = {
      rps: new Tile(this, "Requests", ["rps"], { floor: 1, format: (n) => `${rate(n)}/s` }),
      errors: new Tile(this, "Errors", ["error_ratio"], { floor: 0.02, format: percent }),
      latency: new Tile(this, "Latency", ["p99", "p50"], { floor: 0.001, format: (n) => `p99 ${latency(n)}` }),
      saturation: new Tile(this, "Saturation", ["saturation"], { floor: 1, format: percent }),
      queue: new Tile(this, "Queue", ["queue"], { floor: 4, format: (n) => count(n === null ? null : Math.round(n)) }),
    };
    this.turns = h("p", { class: "turns", hidden: true });
    this.table = h("table", { role: "table", "aria-label": `Servers of ${name}` });
    this.actionsHead = h("th", { role: "columnheader", scope: "col", class: "actions" }, h("span", { class: "unseen" }, "Actions"));
    const heads = Object.entries(HEADS).map(([key, head]) => h("th", { role: "columnheader", scope: "col", class: key }, head));
    this.body = h("tbody", { role: "rowgroup" });
    this.table.append(
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads, this.actionsHead)), this.body);
    this.more = h("button", { type: "button", class: "more", hidden: true, onclick: () => this.showMore() });
    this.none = h("p", { class: "none", hidden: true });
    this.inside = h("div", { id, class: "inside" },
      h("div", { class: "tiles" }, ...Object.values(this.tiles).map((tile) => tile.element)),
      this.turns, this.table, this.none, this.more);
    this.element = h("article", { class: "card", "aria-label": `Pool ${name}` },
      h("div", { class: "head" }, h("h3", {}, this.toggle), this.usable, this.strategy, this.short), this.reason, this.inside);
  }

  setOpen(isOpen) {
    this.isOpen = isOpen;
    setAttribute(this.toggle, "aria-expanded", String(isOpen));
    setHidden(this.inside, !isOpen);
    setHidden(this.short, isOpen);
    const pool = this.owner.model.byName.get(this.name);
    if (pool && isOpen) this.renderInside(pool, true);
  }

  showMore() {
    this.shown += 4 * PAGE;
    this.owner.render(true);
  }

  point(index) {
    for (const tile of Object.values(this.tiles)) tile.point(index);
  }

  // How many of its servers pass the filter.
  render(pool, isAsked, isOpenAtFirst) {
    const servers = [...pool.servers.values()];
    this.found = servers.filter((server) => this.owner.matches(server));
    const level = !pool.usable ? "bad" : servers.some((server) => levelOf(server) === "warn") ? "warn" : "ok";
    setAttribute(this.usable, "data-level", level);
    const standby = pool.standby ? `, ${count(pool.standby)} stand by` : "";
    setText(this.usable, `${count(pool.usable)} of ${count(servers.length)} usable${standby}`);
    const ways = [pool.strategy, pool.protocol !== "h1" && pool.protocol, pool.sticky && `sticky by cookie ${pool.sticky}`];
    setText(this.strategy, ways.filter(Boolean).join(", "));
    const { rates } = pool;
    const p99 = rates && rates.p99 !== null ? `, p99 ${latency(rates.p99)}` : "";
    setText(this.short, rates ? `${rate(rates.rps)} requests/s${p99}` : "");
    const reason = pool.leaving
      ? "The config no longer names this pool: it goes when what is in it is done."
      : pool.failing_open
      ? "Fails open: too few servers pass their checks, so those that were up are used all the same."
      : pool.reason && pool.servers.size ? `Not ready: it ${pool.reason}.` : "";
    setText(this.reason, reason);
    setHidden(this.reason, !reason);
    if (this.isOpen === null) this.setOpen(isOpenAtFirst || level !== "ok");
    else if (this.isOpen) this.renderInside(pool, isAsked);
    return this.found.length;
  }

  renderInside(pool, isAsked) {
    this.renderTiles(pool);
    const { owner } = this;
    const found = this.found || [...pool.servers.values()];
    // The order changes when somebody asks for it or states do; not under a pointer, and not with every request.
    const isHeld = this.body.matches(":hover") || this.body.contains(document.activeElement);
    const key = found.map((server) => `${server.name} ${severity(server)}`).join();
    const isStale = owner.order !== "problems" && performance.now() - this.sortedAt > SORT_MS;
    if (isAsked || ((key !== this.orderKey || isStale) && !isHeld) || !this.body.childElementCount) {
      this.orderKey = key;
      this.sortedAt = performance.now();
      this.names = [...found].sort(owner.compare(pool)).slice(0, this.shown).map((server) => server.name);
    }
    for (const name of this.rows.keys()) if (!pool.servers.has(name)) this.rows.delete(name);
    const rows = [];
    for (const name of this.names) {
      const server = pool.servers.get(name);
      if (!server) continue;
      if (!this.rows.has(name)) this.rows.set(name, new Row(owner, this.name, name));
      const row = this.rows.get(name);
      row.render(server, owner.model, owner.mayWrite);
      rows.push(row.element);
    }
    setChildren(this.body, rows);
    setHidden(this.actionsHead, !owner.mayWrite);
    setHidden(this.table, !rows.length);
    setHidden(this.none, rows.length > 0);
    setText(this.none, pool.servers.size ? "No server here matches the filter."
      : `This pool has no server. To add one: lbproxy add ${this.name}/ADDRESS`);
    const rest = found.length - rows.length;
    setHidden(this.more, rest <= 0);
    setText(this.more, `Show ${count(Math.min(rest, 4 * PAGE))} more of ${count(found.length)}`);
  }

  renderTiles(pool) {
    const { model } = this.owner;
    const now = model.clock();
    const marks = model.events.filter((event) => event.pool === this.name).map((event) => event.t);
    const rates = pool.rates || { rps: null, errors: null, error_ratio: null, p50: null, p99: null, p999: null, saturation: null, slots: null };
    const { rps, errors, latency: time, saturation, queue } = this.tiles;
    rps.render(rates.rps === null ? NONE : `${rate(rates.rps)}/s`, `${count(pool.inflight)} in flight`, pool, now, marks);
    errors.render(percent(rates.error_ratio), rates.errors ? `${rate(rates.errors)}/s` : "", pool, now, marks);
    setAttribute(errors.element, "data-level", rates.error_ratio >= 0.05 ? "bad" : rates.error_ratio >= 0.01 ? "warn" : null);
    const rest = rates.p99 === null ? (rates.rps ? "" : "no requests") : `p50 ${latency(rates.p50)}, p99.9 ${latency(rates.p999)}`;
    time.render(rates.p99 === null ? NONE : `p99 ${latency(rates.p99)}`, rest, pool, now, marks);
    const slots = rates.slots === null ? (pool.usable ? "no limit is set" : "no usable server") : `${count(pool.inflight)} of ${plural(rates.slots, "slot")}`;
    saturation.render(percent(rates.saturation), slots, pool, now, marks);
    setAttribute(saturation.element, "data-level", rates.saturation >= 0.9 ? "warn" : null);
    const of = pool.queue.size === null ? "there is no queue" : `of ${count(pool.queue.size)}`;
    const waits = pool.queue.oldest ? `, oldest ${latency(pool.queue.oldest)}` : "";
    queue.render(count(pool.queue.depth), `${of}${waits}`, pool, now, marks);
    const { depth, classes, keys } = pool.queue;
    const apart = Object.entries(classes || {}).map(([name, n]) => `${name} ${count(n)}`);
    if (typeof keys === "number") apart.push(`${plural(keys, "key")} in turn`);
    setText(this.turns, `Who waits: ${apart.join(", ")}`);
    setHidden(this.turns, !depth || !apart.length);
    setAttribute(queue.element, "data-level", pool.queue.depth ? "warn" : null);
  }
}

class Row {
  constructor(owner, pool, name) {
    this.cells = {};
    const cell = (key, label, ...children) => {
      this.cells[key] = h("td", { role: "cell", class: key, "data-label": label }, ...children);
      return this.cells[key];
    };
    this.state = h("span", { class: "badge" });
    this.name = h("span", { class: "name" }, name);
    this.address = h("span", { class: "muted" });
    this.why = h("span", { class: "why" });
    this.bar = h("span", { class: "fill" });
    this.track = h("span", { class: "track", "aria-hidden": "true" }, this.bar);
    this.inflight = h("span");
    this.errors = h("span");
    this.total = h("span", { class: "muted small" });
    this.latency = h("span");
    this.first = h("span", { class: "muted small" });
    const act = (what, text) =>
      h("button", { type: "button", "aria-label": `${text} ${name} of ${pool}`, onclick: () => owner.onAct(pool, name, what) }, text);
    this.buttons = { ready: act("ready", "Ready"), drain: act("drain", "Drain"), maint: act("maint", "Maint"), edit: act("edit", "Edit") };
    this.element = h("tr", { role: "row", tabindex: -1 },
      cell("state", "State", this.state),
      cell("server", "Server", this.name, this.address, this.why),
      cell("since", "For"),
      cell("load", "In flight", this.inflight, this.track),
      cell("weight", "Weight"),
      cell("rps", "Requests"),
      cell("errors", "Errors", this.errors, this.total),
      cell("latency", "Latency", this.latency, this.first),
      cell("actions", "", ...Object.values(this.buttons)));
    this.pool = pool;
  }

  render(server, model, mayWrite) {
    const rates = model.rates.get(`${this.pool}/${server.name}`) || {};
    setAttribute(this.element, "data-level", levelOf(server));
    setText(this.state, server.state);
    setAttribute(this.state, "data-state", server.state);
    const address = server.address === server.name ? "" : server.address;
    setText(this.address, address);
    setHidden(this.address, !address);
    const why = notes(server, model.age(server));
    setText(this.why, why);
    setHidden(this.why, !why);
    setText(this.cells.since, server.since === null ? NONE : lasting(server.since + model.age(server)));
    const limit = server.max_inflight;
    setText(this.inflight, limit ? `${count(server.inflight)} of ${count(limit)}` : count(server.inflight));
    setHidden(this.track, !limit);
    if (limit) {
      const share = Math.min(1, server.inflight / limit);
      const scale = `scaleX(${share.toFixed(2)})`;
      if (this.bar.style.transform !== scale) this.bar.style.transform = scale;
      setAttribute(this.bar, "data-full", share >= 1 ? "yes" : null);
    }
    const live = server.sources && server.sources.weight && server.sources.weight.source === "live";
    setText(this.cells.weight, `${count(server.weight)}${live ? " *" : ""}`);
    setAttribute(this.cells.weight, "title", live ? "set while running; Edit shows by whom" : null);
    setText(this.cells.rps, rates.rps === undefined ? NONE : `${rate(rates.rps)}/s`);
    setText(this.errors, percent(rates.error_ratio));
    setText(this.total, server.errors ? `${count(server.errors)} in all` : "");
    const answered = (server.latency_age || 0) + model.age(server);
    const isOld = server.latency > 0 && answered > LATENCY_FRESH_S;
    setText(this.latency, latency(server.latency || null));
    setAttribute(this.latency, "class", isOld ? "muted" : null);
    setText(this.first, isOld ? `${lasting(answered)} ago` : rates.ttfb_p50 ? `first byte ${latency(rates.ttfb_p50)}` : "");
    setHidden(this.cells.actions, !mayWrite);
    if (!mayWrite) return;
    const isGone = server.state === "unresolved";
    setHidden(this.buttons.ready, server.admin === "ready" || isGone);
    setHidden(this.buttons.drain, server.admin !== "ready" || isGone);
    setHidden(this.buttons.maint, server.admin === "maint" || isGone);
    setHidden(this.buttons.edit, isGone);
  }
}

// Why a server is as it is, and what is particular about it.
function notes(server, age) {
  const said = [reasonOf(server, age)];
  if (server.leaving) said.push("leaves the pool when it is idle");
  if (server.keep_sticky && server.admin === "drain") said.push("keeps the clients that stick to it");
  if (server.backup) said.push("backup");
  if (server.far) said.push(`in another zone, ${server.zone}`);
  if (server.ramp !== null && server.ramp !== undefined) said.push(`slow start, at ${percent(server.ramp)} of its weight`);
  if (server.slower) said.push("used last, as it is slower than the others");
  if (server.penalty) said.push(`used last for ${lasting(server.penalty + 1)}, as it has failed`);
  if (server.quarantined) said.push(`${plural(server.quarantined, "slot")} used last, as the requests were given up`);
  return said.filter(Boolean).join("; ");
}
