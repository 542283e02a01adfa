// Where the data comes from: the event stream, read with fetch, because EventSource cannot send a token. Where there is
// no stream, or no room for one more reader, the status is asked for every two seconds.
//
// A connection that says nothing for SILENCE_MS is dead, whatever TCP thinks of it. The next attempt comes after a
// pause that doubles up to LONGEST_MS, with some chance in it: all open pages come back at once when a daemon does.
//
// A tab that nobody sees asks now and then, so that its title stays right. A browser has few connections for one
// address (six), and tabs in the background would take all of them from the one in front.

import { authorization, get, refusal } from "./access.js";

const POLL_MS = 2000;
const QUIET_POLL_MS = 10000;
const QUIET_AFTER_MS = 30000;
const SILENCE_MS = 20000;
const FIRST_MS = 500;
const LONGEST_MS = 10000;
const STEADY_MS = 5000; // a connection that lasted that long was a good one: the next pause is short again
const MOST_TEXT = 64 * 1024 * 1024;

// Lines of text/event-stream to (kind, data). A comment or an unfinished event gives nothing.
export class Parser {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.rest = "";
  }

  feed(text) {
    const blocks = (this.rest + text).replaceAll("\r\n", "\n").split("\n\n");
    this.rest = blocks.pop();
    if (this.rest.length > MOST_TEXT) throw new Error("an event is too long");
    for (const block of blocks) {
      let kind = "message";
      const data = [];
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon <= 0) continue;
        const value = line.slice(colon + 1).replace(/^ /, "");
        if (line.startsWith("event:")) kind = value;
        else if (line.startsWith("data:")) data.push(value);
      }
      if (data.length) this.onEvent(kind, JSON.parse(data.join("\n")));
    }
  }
}

export class Feed {
  // onEvent(kind, data). onLink: "wait", "live", "poll", or "gone" with the error, null if it just ended.
  constructor(onEvent, onLink) {
    this.onEvent = onEvent;
    this.onLink = onLink;
    this.wake = () => {};
    this.pause = FIRST_MS;
    this.abort = null;
    this.isQuiet = false;
    this.isRestarted = false;
    this.quietTimer = 0;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.quietTimer);
      if (document.hidden) this.quietTimer = setTimeout(() => this.setQuiet(true), QUIET_AFTER_MS);
      else this.setQuiet(false);
    });
  }

  setQuiet(isQuiet) {
    if (isQuiet === this.isQuiet) return;
    this.isQuiet = isQuiet;
    this.restart();
  }

  // Ends what runs and begins anew: the token is another one, or somebody does not want to wait.
  restart() {
    this.pause = FIRST_MS;
    this.isRestarted = true;
    if (this.abort) this.abort.abort();
    this.wake();
  }

  async run() {
    for (;;) {
      const abort = (this.abort = new AbortController());
      const began = performance.now();
      let error = null;
      try {
        while (!abort.signal.aborted && (this.isQuiet || !(await this.stream(abort)))) await this.poll(abort);
      } catch (caught) {
        error = caught;
      }
      abort.abort();
      this.abort = null;
      if (this.isRestarted) {
        this.isRestarted = false;
        continue;
      }
      if (performance.now() - began > STEADY_MS) this.pause = FIRST_MS;
      const isRefused = error && (error.status === 401 || error.status === 403);
      const pause = isRefused ? LONGEST_MS * 6 : this.pause * (0.75 + Math.random() / 2);
      this.pause = Math.min(this.pause * 2, LONGEST_MS);
      this.onLink("gone", error);
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, pause);
      });
      this.isRestarted = false;
    }
  }

  // Reads until it ends. False if there is no stream to be had.
  async stream(abort) {
    let timer = setTimeout(() => abort.abort(), SILENCE_MS);
    try {
      const headers = { ...authorization(), Accept: "text/event-stream" };
      const answer = await fetch("/api/v1/events", { headers, cache: "no-store", signal: abort.signal });
      if (answer.status === 401 || answer.status === 403) throw await refusal(answer);
      if (!answer.ok) return false;
      let isFirst = true;
      const parser = new Parser((kind, data) => {
        if (isFirst) this.onLink("live");
        isFirst = false;
        this.onEvent(kind, data);
      });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return true;
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENCE_MS);
        parser.feed(value);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  // For a minute; then there may be a stream, or room in it.
  async poll(abort) {
    for (let turn = 0; turn < 30 && !abort.signal.aborted; turn += 1) {
      const timer = setTimeout(() => abort.abort(), SILENCE_MS);
      try {
        const status = await get("/api/v1/status", abort.signal);
        this.onLink("poll");
        this.onEvent("status", status);
      } finally {
        clearTimeout(timer);
      }
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, this.isQuiet ? QUIET_POLL_MS : POLL_MS);
      });
    }
  }
}
