"""The load generator: wrk with a small Lua script per case, and what it says about a run.

wrk works in a closed loop: each connection sends its next request when it has the answer, in paced cases after a
think time. The static cases give wrk one prebuilt request; `unique` calls Lua per request to join three strings, and
`real` to fill one template, which takes LuaJIT 2 us on the load generator's core.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.cases import REQUEST_BODY, Case
from benchmarks.load.errors import BenchmarkError

_MARK = "BENCHMARK "
_HEADERS = {
    "User-Agent": "python-requests/2.32.3",
    "Accept-Encoding": "gzip, deflate",
    "Accept": "*/*",
}
_DONE = f"""
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{_MARK}{{"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %d, "p99_us": %d, ' ..
    '"errors": {{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}}}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""
_UNIQUE = """
local count, before, after = 0
init = function(args)
  local whole = wrk.format()
  local line_end = whole:find("\\r\\n", 1, true) + 1
  before = whole:sub(1, line_end) .. "X-Trace-Id: SEED-"
  after = "\\r\\n" .. whole:sub(line_end + 1)
end
request = function()
  count = count + 1
  return before .. string.format("%08x", count) .. after
end
"""
# Twelve fields. Tables are made once; per request: random numbers into one template. `seed` keeps runs apart.
_REAL = """
local agents = {
  "python-requests/2.32.3", "python-httpx/0.28.1", "okhttp/4.12.0", "Go-http-client/1.1", "curl/8.10.1",
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
}
local tokens, bodies, lengths = {}, {}, {}
local random, format = math.random, string.format
local count, host, note = 0, nil, string.rep("n", 48)
local template =
  "POST /v1/models/iris/users/%08x/predict?request=%08x&note=%s HTTP/1.1\\r\\nHost: %s\\r\\nUser-Agent: %s\\r\\n" ..
  "Accept: application/json\\r\\nAccept-Encoding: gzip, deflate, br\\r\\nAccept-Language: en-US,en;q=0.9\\r\\n" ..
  "Connection: keep-alive\\r\\nAuthorization: Bearer %s\\r\\nContent-Type: application/json\\r\\n" ..
  "Cookie: session=%08x%08x; theme=dark\\r\\n" ..
  "traceparent: 00-%08x%08x%08x%08x-%08x%08x-01\\r\\nX-Request-ID: SEED-%08x-%08x\\r\\nContent-Length: %d\\r\\n\\r\\n%s"
init = function(args)
  host = wrk.headers["Host"]
  math.randomseed(tonumber(("SEED"):gsub("-", ""):sub(-8), 16))
  for i = 1, 500 do
    tokens[i] = ""
    for _ = 1, 6 do tokens[i] = tokens[i] .. format("%08x", random(0, 2147483647)) end
  end
  for i = 1, 64 do
    lengths[i] = random(40, 300)
    bodies[i] = '{"instances": [' .. string.rep("5.1,", 80):sub(1, lengths[i] - 18) .. '0]}'
    lengths[i] = #bodies[i]
  end
end
request = function()
  count = count + 1
  local body = random(64)
  local function id() return random(0, 2147483647) end
  return format(template, id(), id(), note:sub(1, random(0, 48)), host, agents[random(#agents)], tokens[random(500)],
    id(), id(), id(), id(), id(), id(), id(), id(), count, id(), lengths[body], bodies[body])
end
"""
_SCRIPTS = {"same": "", "unique": _UNIQUE, "real": _REAL}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk counted in one run. Latency: from the first byte of the request to the last of the answer."""

    requests: int
    duration_us: int
    bytes: int
    p50_us: int
    p99_us: int
    errors: dict[str, int]


def render_script(case: Case, seed: str) -> str:
    """The Lua script of a case. `seed` keeps the unique headers of one run apart from those of every other."""
    headers = dict(_HEADERS)
    headers["Connection"] = "close" if case.close else "keep-alive"
    lines = [f'wrk.method = "{case.method}"']
    if case.method == "POST":
        headers["Content-Type"] = "application/json"
        lines.append(f"wrk.body = '{REQUEST_BODY.decode()}'")
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    script = _SCRIPTS[case.heads].replace("SEED", seed)
    pace = f"\ndelay = function() return {case.think_ms} end\n" if case.think_ms else ""
    return "\n".join(lines) + script + pace + _DONE


def parse_output(text: str) -> Load:
    """Find the line that the script's `done` printed. Raises BenchmarkError if wrk did not get that far."""
    for line in text.splitlines():
        if line.startswith(_MARK):
            return Load(**json.loads(line.removeprefix(_MARK)))
    raise BenchmarkError(f"wrk printed no result; it said:\n{text.strip()}")


def check_load(load: Load, case: Case, target: str) -> None:
    """Raise BenchmarkError unless every request was answered with a success and a whole body."""
    what = f"{case.name} through {target}"
    if any(load.errors.values()):
        seen = ", ".join(f"{count} {kind}" for kind, count in load.errors.items() if count)
        raise BenchmarkError(f"{what}: wrk counted errors ({seen}) in {load.requests} requests")
    if load.requests == 0:
        raise BenchmarkError(f"{what}: no request was answered")
    least = load.requests * len(case.response_body)
    if load.bytes < least:
        raise BenchmarkError(f"{what}: {load.bytes} bytes came back, but the bodies alone should be {least}")


def run_wrk(program: str, case: Case, port: int, script: Path, *, connections: int, seconds: int) -> Load:
    """Run wrk with one thread on the cores of the caller; blocks for `seconds`."""
    url = f"{'https' if case.tls else 'http'}://127.0.0.1:{port}{case.path}"
    argv = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(script), url]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"wrk did not end within {seconds + 30} s") from None
    if done.returncode:
        raise BenchmarkError(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return parse_output(done.stdout)
