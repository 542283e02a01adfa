// The token of whoever looks, and calls of the API with it. It stays in this tab and goes when the tab is closed.

const KEY = "lbproxy-token";

export const token = () => sessionStorage.getItem(KEY) || "";

export function setToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

export const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

// An answer that is an error: status, and the reason in the words of the daemon.
export class Refusal extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function refusal(answer) {
  let detail = `The answer was ${answer.status} ${answer.statusText}`.trim();
  try {
    const told = await answer.json();
    if (typeof told.detail === "string") detail = told.detail;
  } catch {
    // No JSON: something between this page and lbproxy has answered.
  }
  return new Refusal(answer.status, detail);
}

export async function get(path, signal) {
  const answer = await fetch(path, { headers: authorization(), cache: "no-store", signal });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

export const patch = (pool, server, values) =>
  send(`/api/v1/pools/${encodeURIComponent(pool)}/servers/${encodeURIComponent(server)}`, values);

export const patchSplit = (listener, route, shares) =>
  send(`/api/v1/splits/${encodeURIComponent(listener)}/${encodeURIComponent(route)}`, { shares });

async function send(path, values) {
  const headers = { ...authorization(), "Content-Type": "application/json" };
  const signal = AbortSignal.timeout(15000);
  const answer = await fetch(path, { method: "PATCH", headers, body: JSON.stringify(values), signal });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

export const whoAmI = (signal) => get("/api/v1/whoami", signal);
