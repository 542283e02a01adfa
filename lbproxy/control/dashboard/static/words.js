// Numbers and durations as people read them. null is what is not known, and is shown as a dash.

export const NONE = "–";

const whole = new Intl.NumberFormat("en");

export const count = (n) => (n === null || n === undefined ? NONE : whole.format(n));

export function rate(n) {
  if (n === null || n === undefined) return NONE;
  if (n === 0) return "0";
  if (n < 0.1) return "<0.1";
  if (n < 9.95) return n.toFixed(1);
  return whole.format(Math.round(n));
}

export function percent(ratio) {
  if (ratio === null || ratio === undefined) return NONE;
  const value = ratio * 100;
  if (value === 0) return "0 %";
  if (value < 0.1) return "<0.1 %";
  return value < 9.95 ? `${value.toFixed(1)} %` : `${Math.round(value)} %`;
}

export function latency(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const ms = seconds * 1000;
  if (ms === 0) return "0 ms";
  if (ms < 0.05) return "<0.1 ms";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return seconds < 99.5 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

// How long something has lasted: two units at most.
export function lasting(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return minutes < 10 && s % 60 ? `${minutes} min ${s % 60} s` : `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${Math.floor(hours / 24)} d`;
}

const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const clock = (unix) => time.format(new Date(unix * 1000));

// With the day if that is not today.
export function moment(unix, now) {
  const date = new Date(unix * 1000);
  const isToday = date.toDateString() === new Date(now * 1000).toDateString();
  return isToday ? time.format(date) : `${day.format(date)} ${time.format(date)}`;
}

// A rate in the unit in which it is a number of at least one.
export function allowance(perSecond) {
  const [n, unit] = [[1, "s"], [60, "min"], [3600, "h"], [86400, "day"]]
    .map(([seconds, name]) => [perSecond * seconds, name])
    .find(([many, name]) => many >= 0.999 || name === "day");
  return `${whole.format(Number(n.toPrecision(3)))}/${unit}`;
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
