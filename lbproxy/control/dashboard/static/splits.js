// Splits of routes: the shares in force, and a dialog that changes them.

import { patchSplit } from "./access.js";
import { h, setAttribute, setChildren, setHidden, setText } from "./dom.js";
import { count, lasting, percent } from "./words.js";

const MOST_SHARE = 1000000;

export class Splits {
  // list: the element that has them. onChanged: after a change, with the split as it is now.
  constructor(list, control, onChanged) {
    this.list = list;
    this.control = control;
    this.onChanged = onChanged;
    this.items = new Map();
    this.mayWrite = false;
  }

  render(splits, age) {
    const elements = splits.map((split) => {
      const key = JSON.stringify([split.listener, split.route]);
      if (!this.items.has(key)) this.items.set(key, this.item());
      const item = this.items.get(key);
      item.set(split, age);
      return item.element;
    });
    for (const [key, item] of this.items) if (!elements.includes(item.element)) this.items.delete(key);
    setChildren(this.list, elements);
    setHidden(this.list, !elements.length);
  }

  item() {
    let current = null;
    const text = h("span");
    const button = h("button", { type: "button", onclick: () => this.edit(current) }, "Edit");
    const element = h("li", {}, text, " ", button);
    const set = (split, age) => {
      current = split;
      setText(text, sentence(split, age));
      setAttribute(button, "aria-label", `Edit the split of ${name(split)}`);
      setHidden(button, !this.mayWrite);
    };
    return { element, set };
  }

  edit(split) {
    const inputs = split.pools.map((item, index) =>
      h("input", { type: "number", id: `split-${index}`, min: 0, max: MOST_SHARE, required: true, value: item.share }));
    const back = h("input", { type: "checkbox" });
    back.addEventListener("change", () => {
      for (const input of inputs) input.disabled = back.checked;
    });
    const given = split.pools.map((item) => `${item.pool} ${count(item.file)}`).join(", ");
    this.control.open(`Split: ${name(split)}`, [
      h("p", { class: "muted" }, "Shares are whole numbers in any scale; 0: no request. They hold from the next request on."),
      ...split.pools.map((item, index) =>
        h("p", { class: "field" }, h("label", { for: `split-${index}` }, item.pool), inputs[index])),
      split.live ? h("p", {}, h("label", { class: "check" }, back, ` Give them back to the config file (${given})`)) : null,
    ], "Save", async () => {
      const shares = back.checked ? "file" : Object.fromEntries(split.pools.map((item, index) => [item.pool, share(inputs[index], item.pool)]));
      await this.change(split, shares);
      return true;
    });
  }

  async change(split, shares) {
    const told = await patchSplit(split.listener, split.name ?? String(split.route), shares);
    this.onChanged(told.split);
    if (!Object.keys(told.changed).length) {
      this.control.toast("Nothing to change: it was so already.");
      return;
    }
    const before = split.live ? Object.fromEntries(split.pools.map((item) => [item.pool, item.share])) : "file";
    this.control.toast(`The split of ${name(split)} is changed.`, async () => {
      const undone = await patchSplit(split.listener, split.name ?? String(split.route), before);
      this.onChanged(undone.split);
      this.control.toast(`Undone: the split of ${name(split)} is as before.`);
    });
  }
}

const name = (split) => `${split.listener}/${split.name ?? split.route}`;

function sentence(split, age) {
  const shares = split.pools.map((item) => `${item.pool} ${percent(item.ratio)}`).join(", ");
  const how = split.by ? `by ${split.by}` : "by chance";
  const live = split.live ? `; set by ${split.live.by} ${lasting(split.live.since + age)} ago` : "";
  return `split ${name(split)} (${how}): ${shares}${live}`;
}

function share(input, pool) {
  const value = Number(input.value);
  if (input.value.trim() === "" || !Number.isInteger(value) || value < 0 || value > MOST_SHARE) {
    input.focus();
    throw new Error(`The share of ${pool} is a whole number from 0 to ${MOST_SHARE}.`);
  }
  return value;
}
