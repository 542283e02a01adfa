// What operators change: each change is asked about before it is made, says what became of it, and can be undone.

import { patch, setToken, token } from "./access.js";
import { byId, h, setText } from "./dom.js";
import { lasting, plural } from "./words.js";

const MOST_TOASTS = 4;
const UNDO_MS = 20000;
const WORD_MS = 6000;
const TITLES = { ready: "Ready", drain: "Drain", maint: "Maintenance" };
const DONE = { ready: "takes requests again", drain: "gets no new requests", maint: "is in maintenance" };

export class Control {
  // onChanged: after a change, with the pool's name and the server as it is now. onToken: the token is another one.
  constructor(model, onChanged, onToken) {
    this.model = model;
    this.onChanged = onChanged;
    this.onToken = onToken;
  }

  act(pool, server, what) {
    if (what === "edit") this.edit(pool, server);
    else this.confirm(pool, server, what);
  }

  // --- dialogs ---

  // content: elements. onAccept returns true to close; what it throws is shown.
  open(title, content, accept, onAccept, isGrave = false) {
    const error = h("p", { class: "error", role: "alert" });
    const button = h("button", { type: "submit", class: isGrave ? "grave" : "main" }, accept);
    const form = h("form", { method: "dialog", novalidate: true },
      h("h2", { id: "dialog-title" }, title), ...content, error,
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), button));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      setText(error, "");
      try {
        if (await onAccept()) dialog.close();
      } catch (caught) {
        setText(error, sentence(caught));
      }
      button.disabled = false;
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    return dialog;
  }

  found(pool, server) {
    return this.model.byName.get(pool)?.servers.get(server);
  }

  confirm(poolName, name, what) {
    const pool = this.model.byName.get(poolName);
    const server = this.found(poolName, name);
    if (!server) return;
    const content = [];
    const isLast = what !== "ready" && server.used && pool.usable <= 1 && !pool.standby;
    if (what === "ready") content.push(h("p", {}, "It gets requests again as soon as it is well; after maintenance it is checked first."));
    else {
      const rest = server.inflight ? ` ${plural(server.inflight, "request")} in flight ${server.inflight === 1 ? "ends" : "end"} as usual.` : "";
      const checks = what === "maint" ? " and no checks" : "";
      content.push(h("p", {}, `It gets no new requests${checks} until somebody readies it.${rest}`));
      if (isLast) content.push(h("p", { class: "warning" }, "It is the last usable server of this pool: without it requests wait, and then fail with 503."));
      else if (server.used) {
        const standby = pool.standby ? `, ${pool.standby} stand by` : "";
        content.push(h("p", {}, `${pool.usable - 1} of ${pool.servers.size} servers stay usable${standby}.`));
      }
    }
    this.open(`${TITLES[what]}: ${name}`, [h("p", { class: "muted" }, `pool ${poolName}`), ...content], TITLES[what],
      async () => {
        await this.change(poolName, name, { admin: what }, `${name} ${DONE[what]}`);
        return true;
      }, isLast);
  }

  edit(poolName, name) {
    const server = this.found(poolName, name);
    if (!server) return;
    const weight = h("input", { type: "number", id: "edit-weight", min: 0, max: 65535, required: true, value: server.weight,
      "aria-describedby": "edit-weight-hint" });
    const limit = h("input", { type: "number", id: "edit-limit", min: 1, max: 1000000, value: server.max_inflight ?? "",
      placeholder: "no limit", "aria-describedby": "edit-limit-hint" });
    const back = h("input", { type: "checkbox" });
    const { sources } = server;
    const isLive = sources && ["weight", "max_inflight"].some((key) => sources[key].source === "live");
    back.addEventListener("change", () => {
      weight.disabled = limit.disabled = back.checked;
    });
    this.open(`Edit: ${name}`, [
      h("p", { class: "muted" }, `pool ${poolName}`),
      h("p", { class: "field" }, h("label", { for: "edit-weight" }, "Weight"), weight,
        h("span", { class: "muted", id: "edit-weight-hint" }, origin(sources, "weight", "0 to 65535; 0: no new requests."))),
      h("p", { class: "field" }, h("label", { for: "edit-limit" }, "Requests in flight, at most"), limit,
        h("span", { class: "muted", id: "edit-limit-hint" }, origin(sources, "max_inflight", "Empty: no limit."))),
      isLive ? h("p", {}, h("label", { class: "check" }, back, " Give both back to the config file")) : null,
    ], "Save", async () => {
      const wanted = {};
      if (back.checked) Object.assign(wanted, { weight: "file", max_inflight: "file" });
      else {
        const [w, m] = [number(weight, "Weight", 0, 65535), limit.value.trim() === "" ? null : number(limit, "The limit", 1, 1000000)];
        if (w !== server.weight) wanted.weight = w;
        if (m !== server.max_inflight) wanted.max_inflight = m;
      }
      if (Object.keys(wanted).length) await this.change(poolName, name, wanted, `${name} is changed`);
      return true;
    });
  }

  token() {
    const input = h("input", { type: "password", id: "token-input", autocomplete: "off", spellcheck: "false", value: token() });
    this.open("Token", [
      h("p", {}, "A token of admin.token or admin.tokens. It stays in this tab, and is forgotten when the tab is closed."),
      h("p", { class: "field" }, h("label", { for: "token-input" }, "Token (empty: none)"), input),
    ], "Use it", async () => {
      const before = token();
      setToken(input.value.trim());
      try {
        if (!/^[!-~]*$/.test(token())) throw new Error("A token has only visible ASCII characters.");
        await this.onToken();
      } catch (caught) {
        setToken(before);
        void this.onToken().catch(() => {});
        throw caught;
      }
      return true;
    });
  }

  // --- changes ---

  async change(pool, name, wanted, text) {
    const before = this.found(pool, name);
    const told = await patch(pool, name, wanted);
    this.onChanged(pool, told.server);
    const undo = {};
    for (const [key, change] of Object.entries(told.changed)) {
      const source = before && before.sources && before.sources[key] && before.sources[key].source;
      undo[key] = source === "live" || !source ? change.old : "file";
    }
    if (!Object.keys(undo).length) this.toast("Nothing to change: it was so already.");
    else this.toast(`${text}.`, async () => {
      const back = await patch(pool, name, undo);
      this.onChanged(pool, back.server);
      this.toast(`Undone: ${name} is as before.`);
    });
  }

  toast(text, onUndo) {
    const box = byId("toasts");
    const element = h("div", { class: "toast", role: "status" }, h("p", {}, text));
    let timer = 0;
    const end = () => {
      clearTimeout(timer);
      element.remove();
    };
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => (element.matches(":hover, :focus-within") ? wait() : end()), onUndo ? UNDO_MS : WORD_MS);
    };
    if (onUndo) {
      element.append(h("button", { type: "button", onclick: async (event) => {
        event.target.disabled = true;
        try {
          await onUndo();
        } catch (caught) {
          this.toast(`It could not be undone: ${sentence(caught)}`);
        }
        end();
      } }, "Undo"));
    }
    element.append(h("button", { type: "button", class: "close", "aria-label": "Dismiss", onclick: end }, "✕"));
    box.append(element);
    while (box.childElementCount > MOST_TOASTS) box.firstElementChild.remove();
    wait();
  }
}

function number(input, what, least, most) {
  const value = Number(input.value);
  if (input.value.trim() === "" || !Number.isInteger(value) || value < least || value > most) {
    input.focus();
    throw new Error(`${what} is a whole number from ${least} to ${most}.`);
  }
  return value;
}

function origin(sources, key, hint) {
  const source = sources && sources[key];
  if (!source || source.source !== "live") return hint;
  const given = source.given === null ? "no limit" : source.given;
  return `${hint} Set by ${source.by} ${lasting(source.since)} ago; the file says ${given}.`;
}

function sentence(error) {
  if (error.name === "TimeoutError") return "lbproxy has not answered within 15 s. Whether the change was made shows above.";
  if (error instanceof TypeError) return "lbproxy cannot be reached. Nothing is known to have changed.";
  return error.message;
}
