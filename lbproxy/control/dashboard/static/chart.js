// A small line chart as SVG: ten minutes, the newest at the right, marks where something happened.

import { setAttribute, svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 56;
const TOP = 4;
const GAP_S = 20; // no point for so long: the line ends, and begins anew

export class Chart {
  // names: of the lines, the first with an area below it. floor: the value at the top, at least.
  constructor(names, { floor, windowS }) {
    this.names = names;
    this.floor = floor;
    this.windowS = windowS;
    this.lines = names.map((name) => svg("path", { class: `line ${name}`, "vector-effect": "non-scaling-stroke" }));
    this.area = svg("path", { class: `area ${names[0]}` });
    this.marks = svg("path", { class: "marks", "vector-effect": "non-scaling-stroke" });
    this.cursor = svg("path", { class: "cursor", "vector-effect": "non-scaling-stroke" });
    const base = svg("path", { class: "base", d: `M0 ${HEIGHT}H${WIDTH}`, "vector-effect": "non-scaling-stroke" });
    this.element = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "chart" },
      base, this.area, this.marks, ...this.lines, this.cursor,
    );
    this.history = { t: [] };
    this.now = 0;
  }

  x(t) {
    return ((t - this.now + this.windowS) / this.windowS) * WIDTH;
  }

  // label: what a screen reader says in place of the picture.
  draw(history, now, marks, label) {
    this.history = history;
    this.now = now;
    let top = this.floor;
    for (const name of this.names) for (const value of history[name]) if (value > top) top = value;
    setAttribute(this.element, "data-flat", this.names.every((name) => !history[name].some((value) => value > 0)) ? "yes" : null);
    this.names.forEach((name, index) => {
      const runs = this.runs(history.t, history[name], top);
      setAttribute(this.lines[index], "d", runs.map((run) => `M${run.map((point) => point.join(" ")).join("L")}`).join(""));
      if (index) return;
      const areas = runs.map((run) => {
        const line = run.map((point) => point.join(" ")).join("L");
        return `M${run[0][0]} ${HEIGHT}L${line}L${run.at(-1)[0]} ${HEIGHT}Z`;
      });
      setAttribute(this.area, "d", areas.join(""));
    });
    const inside = marks.filter((t) => t > now - this.windowS);
    setAttribute(this.marks, "d", inside.map((t) => `M${this.x(t).toFixed(1)} 0V${HEIGHT}`).join(""));
    setAttribute(this.element, "aria-label", label);
  }

  // Pieces of a line without a gap, as points.
  runs(times, values, top) {
    const runs = [];
    let last = -Infinity;
    times.forEach((t, index) => {
      const value = values[index];
      if (value === null || value === undefined || t < this.now - this.windowS) return;
      if (t - last > GAP_S) runs.push([]);
      last = t;
      const y = HEIGHT - (Math.min(value, top) / top) * (HEIGHT - TOP);
      runs.at(-1).push([Number(this.x(t).toFixed(1)), Number(y.toFixed(1))]);
    });
    for (const run of runs) if (run.length === 1) run.push([run[0][0] + 1, run[0][1]]);
    return runs;
  }

  // The point that is nearest to a place on the screen: its index, or -1.
  at(clientX) {
    const box = this.element.getBoundingClientRect();
    const t = this.now - this.windowS * (1 - (clientX - box.left) / box.width);
    let best = -1;
    this.history.t.forEach((time, index) => {
      if (best < 0 || Math.abs(time - t) < Math.abs(this.history.t[best] - t)) best = index;
    });
    return best;
  }

  point(index) {
    const t = this.history.t[index];
    setAttribute(this.cursor, "d", t === undefined ? null : `M${this.x(t).toFixed(1)} 0V${HEIGHT}`);
  }
}
