// Puts the page together: data comes in, the model keeps it, and what is shown follows.

import { Refusal, token, whoAmI } from "./access.js";
import { Control } from "./control.js";
import { byId, h, setAttribute, setChildren, setHidden, setText } from "./dom.js";
import { Model } from "./model.js";
import { Pools } from "./pools.js";
import { Splits } from "./splits.js";
import { Feed } from "./stream.js";
import { verdict } from "./verdict.js";
import { allowance, clock, count, lasting, latency, moment, percent, plural, rate } from "./words.js";

const PAUSE_MS = 400; // between two renderings that nobody asked for: what comes together is shown together
const QUIET_MS = 5000; // between two sentences for screen readers
const MOST_PROBLEMS = 6;
const KINDS = {
  flip: "state", ejection: "ejected", reload: "reload", live: "operator", fail_open: "fail open", names: "names", process: "lbproxy",
};

const model = new Model();
const control = new Control(
  model,
  (pool, server) => {
    const known = model.byName.get(pool);
    if (known) model.setServer(known, server);
    soon();
  },
  async () => {
    await learnRights();
    feed.restart();
  },
);
const pools = new Pools(model, (pool, server, what) => control.act(pool, server, what));

const splits = new Splits(byId("splits"), control, (split) => {
  const known = model.status && model.status.splits;
  if (known) model.status.splits = known.map((item) => (item.listener === split.listener && item.route === split.route ? split : item));
  soon();
});

let isAsked = false;
let shownAt = -Infinity;
let areAllShown = false;
let firstVersion = null;
let lastAnswer = null;

function soon() {
  if (isAsked) return;
  isAsked = true;
  const draw = () => requestAnimationFrame(() => {
    isAsked = false;
    shownAt = performance.now();
    render();
  });
  const wait = shownAt + PAUSE_MS - performance.now();
  if (wait > 0) setTimeout(draw, wait);
  else draw();
}

// The verdict on what is known now; it is made once for all who ask at a time.
let made = { key: "", verdict: null };

function current() {
  const key = `${model.version} ${Math.floor(model.now())}`;
  if (key !== made.key) made = { key, verdict: verdict(model) };
  return made.verdict;
}

// --- what is shown ---

function render() {
  if (!model.status) return;
  const { status } = model;
  setText(byId("about"), `${status.version}, up ${lasting(status.uptime + model.age({}))}`);
  const found = current();
  setAttribute(byId("verdict"), "data-level", found.level);
  setText(byId("verdict-title"), found.title);
  setText(byId("facts"), facts());
  renderProblems(found.problems);
  const listeners = status.listeners.map((item) => {
    const name = item.bind.includes(item.name) ? item.name : `${item.name} ${item.bind.join(", ")}`;
    return `${name} (${item.mode})`;
  });
  setList(byId("listeners"), listeners, (text) => h("li", {}, text));
  splits.render(status.splits || [], model.age({}));
  const limits = status.rate_limits || [];
  setList(byId("limits"), limits.map(limitWords), (text) => h("li", {}, text));
  setHidden(byId("limits"), !limits.length);
  pools.render();
  renderEvents();
}

function limitWords(limit) {
  const open = limit.open ? `, ${count(limit.open)} let through for want of an answer of ${limit.store}` : "";
  const by = limit.key === "all" ? "for all together" : `by ${limit.key}`;
  const where = limit.store === "local" ? "" : ", over the fleet";
  return `limit ${limit.name} (${allowance(limit.rate)} ${by}${where}): ${count(limit.limited)} refused${open}`;
}

function facts() {
  const servers = model.pools.flatMap((pool) => [...pool.servers.values()]);
  const sum = (key) => model.pools.reduce((total, pool) => total + ((pool.rates && pool.rates[key]) || 0), 0);
  const total = (key) => model.pools.reduce((all, pool) => all + (pool[key] || 0), 0);
  const standby = total("standby") ? `, ${count(total("standby"))} stand by` : "";
  const said = [`${plural(model.pools.length, "pool")}, ${count(total("usable"))} of ${plural(servers.length, "server")} usable${standby}`];
  if (model.pools.some((pool) => pool.rates)) {
    const rps = sum("rps");
    said.push(`${rate(rps)} requests/s`, `${percent(rps ? sum("errors") / rps : 0)} errors`);
    const slowest = Math.max(...model.pools.map((pool) => pool.rates?.p99 ?? -1));
    if (slowest >= 0) said.push(`p99 ${latency(slowest)}`);
  }
  return said.join(" · ");
}

function setTitle() {
  if (!model.status) return;
  const text = byId("link").dataset.link === "gone" ? "No answer - lbproxy" : `${current().title} - lbproxy`;
  if (document.title !== text) document.title = text;
}

// Makes a list anew only if its texts are others.
function setList(list, texts, make) {
  const key = texts.join("\n");
  if (list.key === key) return;
  list.key = key;
  list.replaceChildren(...texts.map(make));
}

const items = [];

function renderProblems(problems) {
  const shown = areAllShown ? problems : problems.slice(0, MOST_PROBLEMS);
  while (items.length < shown.length) items.push(problemItem());
  shown.forEach((problem, index) => items[index].set(problem));
  setChildren(byId("problems"), shown.map((_, index) => items[index].element));
  const rest = problems.length - shown.length;
  setHidden(byId("more-problems"), rest <= 0);
  setText(byId("more-problems"), `Show ${plural(rest, "more line")}`);
}

function problemItem() {
  let target = null;
  const where = h("button", { type: "button", class: "where", onclick: () => pools.reveal(target.pool, target.filter || target.server || "") });
  const text = h("span");
  const element = h("li", {}, where, " ", text);
  return {
    element,
    set(problem) {
      target = problem;
      setAttribute(element, "data-level", problem.level);
      setHidden(where, !problem.pool);
      setText(where, problem.server ? `${problem.pool} / ${problem.server}` : problem.pool || "");
      setText(text, problem.text);
    },
  };
}

const drawn = new Map();

function renderEvents() {
  const now = model.clock();
  const elements = [];
  for (const event of model.events.toReversed()) {
    if (!drawn.has(event)) drawn.set(event, eventItem(event, now));
    elements.push(drawn.get(event));
  }
  if (drawn.size > elements.length) {
    const kept = new Set(model.events);
    for (const event of drawn.keys()) if (!kept.has(event)) drawn.delete(event);
  }
  setChildren(byId("event-list"), elements);
  setHidden(byId("event-list"), !elements.length);
  setHidden(byId("no-events"), elements.length > 0);
}

function eventItem(event, now) {
  const at = new Date(event.t * 1000);
  const text = event.text.replace(`pool ${event.pool}: server `, `${event.pool} / `);
  const where = [event.pool, event.server].filter(Boolean).join(" / ");
  const by = event.by && !event.text.includes(`by ${event.by}`) ? `, by ${event.by}` : "";
  return h("li", { "data-kind": event.kind, "data-new": event.new ?? null },
    h("time", { datetime: at.toISOString() }, moment(event.t, now)), " ",
    h("span", { class: "kind" }, KINDS[event.kind] || event.kind), " ",
    where && !event.text.includes(event.server || event.pool) ? h("span", { class: "name" }, `${where} `) : null,
    h("span", {}, `${text}${by}`));
}

// --- what is said ---

let saidAt = -Infinity;
let saidText = "";
let sayTimer = 0;

// Only when the verdict is another one, and not more often than every few seconds.
function say() {
  if (!model.status) return;
  const isGone = byId("link").dataset.link === "gone";
  const text = isGone ? "lbproxy does not answer" : current().title;
  if (text === saidText || sayTimer) return;
  const wait = saidAt + QUIET_MS - performance.now();
  if (wait > 0) {
    sayTimer = setTimeout(() => {
      sayTimer = 0;
      say();
    }, wait);
    return;
  }
  saidAt = performance.now();
  saidText = text;
  setText(byId("said"), text);
}

// --- the link ---

let gone = null;

function linked(link, error) {
  const before = byId("link").dataset.link;
  byId("link").dataset.link = link;
  if (link === "gone") gone = error;
  else {
    lastAnswer = Date.now() / 1000;
    gone = null;
    if (before !== "live" && before !== "poll") void learnRights().catch(() => {});
  }
  setText(byId("link-text"), { live: "live", poll: "every 2 s", gone: "no answer", wait: "connecting" }[link]);
  setAttribute(document.body, "data-stale", link === "gone" ? "yes" : null);
  renderBanner();
  setTitle();
  say();
}

function renderBanner() {
  const isGone = byId("link").dataset.link === "gone";
  const version = model.status && model.status.version;
  const isNewer = firstVersion && version && version !== firstVersion;
  // A connection that ended and is back at once is not worth a word.
  const isLong = isGone && (lastAnswer === null || Date.now() / 1000 - lastAnswer > 1.5 || gone instanceof Refusal);
  setHidden(byId("banner"), !isLong && !isNewer);
  if (isLong && gone instanceof Refusal && (gone.status === 401 || gone.status === 403)) {
    setText(byId("banner-text"), `lbproxy does not show its data to you: ${gone.message}`);
    setText(byId("banner-button"), "Give a token");
  } else if (isLong) {
    const since = lastAnswer ? ` since ${clock(lastAnswer)}` : "";
    setText(byId("banner-text"), `No answer from lbproxy${since}. What is shown is from then; this page tries again by itself.`);
    setText(byId("banner-button"), "Try now");
  } else if (isNewer) {
    setText(byId("banner-text"), `lbproxy is now ${version}; this page is of ${firstVersion}.`);
    setText(byId("banner-button"), "Load it anew");
  }
}

byId("banner-button").addEventListener("click", () => {
  const { status } = gone || {};
  if (status === 401 || status === 403) control.token();
  else if (gone || byId("link").dataset.link === "gone") feed.restart();
  else location.reload();
});
byId("token").addEventListener("click", () => control.token());
byId("more-problems").addEventListener("click", () => {
  areAllShown = true;
  render();
});

async function learnRights() {
  let rights;
  try {
    rights = await whoAmI(AbortSignal.timeout(10000));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    setHidden(byId("token"), error.status !== 401 && error.status !== 403);
    pools.mayWrite = splits.mayWrite = false;
    setText(byId("rights"), "");
    soon();
    throw error;
  }
  pools.mayWrite = splits.mayWrite = rights.may_write;
  setHidden(byId("token"), !rights.takes_token);
  setText(byId("token"), rights.token ? `Token: ${rights.token}` : token() ? "Token" : "Give a token");
  setText(byId("rights"), rights.may_write ? "" : `You may look and not change: ${rights.why_not}`);
  soon();
}

const feed = new Feed((kind, data) => {
  lastAnswer = Date.now() / 1000;
  model.apply(kind, data);
  if (firstVersion === null && model.status) firstVersion = model.status.version;
  if (kind === "state" || kind === "status") renderBanner();
  setTitle();
  say();
  soon();
}, linked);

setInterval(() => {
  renderBanner();
  if (byId("link").dataset.link !== "gone" && performance.now() - shownAt > 1000) soon();
}, 1000);
void feed.run();
