"""The dashboard in a real browser, on a real daemon: it says what is so, follows it, changes it, and comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from lbproxy.control.dashboard.pages import FOLDER
from tests.support.browser import browser, complaints, tab
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(240)  # a browser wants more than a core of its own, and gets little of two busy ones

CONNECTIONS = 6  # that a browser has for an address, and that it may still keep when its page is closed


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    started = [Origin(), Origin(), Origin()]
    yield started
    for origin in started:
        origin.close()


def config(*servers: str, admin: dict[str, object] | None = None, **pool: object) -> dict[str, object]:
    # Nobody is down because this machine is busy.
    check = {"path": "/health", "interval": "100ms", "timeout": "60s", "fall": 1, "rise": 1}
    return {
        "admin": {"bind": f"127.0.0.1:{consecutive_ports(1)}", **(admin or {})},
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "predict"}],
        "pools": {"predict": {"servers": list(servers), "health_check": check, **pool}},
    }


def url(lb: LbProxy) -> str:
    return f"http://127.0.0.1:{lb.port('admin')}/"


@contextmanager
def daemon(settings: dict[str, object], folder: Path) -> Iterator[LbProxy]:
    with LbProxy(settings, folder) as lb:
        yield lb
        lb.baseline_fds += CONNECTIONS


def names(origins: list[Origin]) -> list[str]:
    return [f"127.0.0.1:{origin.port}" for origin in origins]


def state_of(lb: LbProxy, server: str) -> str:
    pools = lb.status()["pools"]
    assert isinstance(pools, list)
    return str(next(item["state"] for item in pools[0]["servers"] if item["name"] == server))


def row(page: Page, server: str) -> Locator:
    return page.get_by_role("row").filter(has_text=server)


def title(page: Page) -> Locator:
    return page.locator("#verdict-title")


def test_it_says_what_is_so_and_follows_it(chromium: Browser, origins: list[Origin], tmp_path: Path) -> None:
    with daemon(config(*names(origins)), tmp_path) as lb, tab(chromium, url(lb)) as shown:
        page = shown.page
        expect(title(page)).to_have_text("All is well")
        expect(page.locator("#facts")).to_contain_text("1 pool, 3 of 3 servers usable")
        expect(page.get_by_role("row")).to_have_count(4)
        for server in names(origins):
            expect(row(page, server)).to_contain_text("up")
            expect(row(page, server)).to_contain_text("answered 200 to GET /health")
        assert complaints(page) == []
        origins[1].close()
        expect(title(page)).to_have_text(f"Serving, but {names(origins)[1]} is down")
        expect(page.locator("#problems")).to_contain_text("connection refused")
        expect(page.get_by_role("row").nth(1)).to_contain_text(names(origins)[1])  # the problem comes first
        expect(page.locator("#event-list")).to_contain_text(re.compile("down"))
        expect(page).to_have_title(f"Serving, but {names(origins)[1]} is down - lbproxy")
        page.locator("#problems").get_by_role("button").click()
        expect(page.get_by_role("row").nth(1)).to_be_focused()
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert complaints(page) == []
        shown.check_clean()


def test_a_server_is_drained_by_the_keyboard_and_that_is_undone(
    chromium: Browser, origins: list[Origin], tmp_path: Path
) -> None:
    server = names(origins)[0]
    with daemon(config(*names(origins)), tmp_path) as lb, tab(chromium, url(lb)) as shown:
        page = shown.page
        page.get_by_role("button", name=f"Drain {server} of predict").press("Enter")
        dialog = page.get_by_role("dialog", name=f"Drain: {server}")
        expect(dialog).to_contain_text("2 of 3 servers stay usable")
        assert state_of(lb, server) == "up"  # nothing happens before it is confirmed
        dialog.get_by_role("button", name="Drain").press("Enter")
        expect(dialog).to_have_count(0)
        expect(row(page, server)).to_contain_text("drained by 127.0.0.1")
        assert state_of(lb, server) == "drain"
        expect(title(page)).to_have_text("All is well")  # somebody wanted it so
        page.get_by_role("button", name="Undo").press("Enter")
        expect(row(page, server).get_by_role("button", name="Drain")).to_be_visible()
        expect(row(page, server)).not_to_contain_text("drained by")
        wait_until(lambda: state_of(lb, server) == "up", "the server to be ready again")
        sources = lb.status()["pools"][0]["servers"][0]["sources"]  # type: ignore[index]
        assert sources["admin"]["source"] == "file"
        shown.check_clean()


def test_weight_and_limit_are_changed_and_a_slip_is_told(
    chromium: Browser, origins: list[Origin], tmp_path: Path
) -> None:
    server = names(origins)[0]
    with daemon(config(*names(origins)), tmp_path) as lb, tab(chromium, url(lb)) as shown:
        page = shown.page
        page.get_by_role("button", name=f"Edit {server} of predict").click()
        page.get_by_label("Weight").fill("70000")
        page.get_by_label("Requests in flight, at most").fill("4")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text(
            "Weight is a whole number from 0 to 65535."
        )
        page.get_by_label("Weight").fill("7")
        page.get_by_role("button", name="Save").click()
        expect(row(page, server)).to_contain_text("0 of 4")
        page.get_by_role("button", name=f"Edit {server} of predict").click()
        expect(page.get_by_role("dialog")).to_contain_text("Set by 127.0.0.1")
        page.get_by_label("Give both back to the config file").check()
        page.get_by_role("button", name="Save").click()
        expect(row(page, server)).not_to_contain_text("0 of 4")
        sources = lb.status()["pools"][0]["servers"][0]["sources"]  # type: ignore[index]
        assert {sources[key]["source"] for key in sources} == {"file"}
        shown.check_clean()


def test_the_shares_of_a_split_are_changed_undone_and_given_back(
    chromium: Browser, origins: list[Origin], tmp_path: Path
) -> None:
    settings = config(*names(origins)[:2])
    pools = settings["pools"]
    assert isinstance(pools, dict)
    pools["canary"] = {"servers": names(origins)[2:], "health_check": "off"}
    route = {"name": "chat", "split": {"predict": 95, "canary": 5}}
    settings["listeners"] = [{"name": "in", "bind": "127.0.0.1:0", "routes": [route]}]
    with daemon(settings, tmp_path) as lb, tab(chromium, url(lb)) as shown:
        page = shown.page
        line = page.get_by_role("list", name="Splits")
        expect(line).to_contain_text("split in/chat (by chance): predict 95 %, canary 5.0 %")
        page.get_by_role("button", name="Edit the split of in/chat").click()
        dialog = page.get_by_role("dialog", name="Split: in/chat")
        dialog.get_by_label("canary").fill("1.5")
        dialog.get_by_role("button", name="Save").click()
        expect(dialog.get_by_role("alert")).to_have_text("The share of canary is a whole number from 0 to 1000000.")
        dialog.get_by_label("canary").fill("95")
        dialog.get_by_role("button", name="Save").click()
        expect(line).to_contain_text("predict 50 %, canary 50 %; set by 127.0.0.1")
        page.get_by_role("button", name="Undo").click()
        expect(line).not_to_contain_text("set by")
        with httpx.Client() as client:  # what others change is seen, too
            path = f"{url(lb)}api/v1/splits/in/chat"
            assert client.patch(path, json={"shares": {"predict": 0}}, timeout=60).status_code == 200
        expect(line).to_contain_text("predict 0 %, canary 100 %; set by 127.0.0.1")
        page.get_by_role("button", name="Edit the split of in/chat").click()
        page.get_by_label("Give them back to the config file").check()
        page.get_by_role("button", name="Save").click()
        expect(line).to_contain_text("predict 95 %, canary 5.0 %")
        expect(line).not_to_contain_text("set by")
        shown.check_clean()


def test_limits_and_what_they_refuse_are_shown_while_it_happens(
    chromium: Browser, origins: list[Origin], tmp_path: Path
) -> None:
    settings = config(*names(origins), sticky={"cookie": "lb", "secret": "0123456789abcdef"})
    limit = {"name": "tight", "key": "all", "rate": "1/h", "burst": 2, "match": {"path": "/tight"}}
    settings["rate_limits"] = [limit, {"name": "wide", "key": "client_ip", "rate": "100/s"}]
    with daemon(settings, tmp_path) as lb, tab(chromium, url(lb)) as shown:
        line = shown.page.get_by_role("list", name="Rate limits")
        expect(line).to_contain_text("limit tight (1/h for all together): 0 refused")
        expect(line).to_contain_text("limit wide (100/s by client_ip): 0 refused")
        expect(shown.page.locator("#cards")).to_contain_text("least_connections, sticky by cookie lb")
        with httpx.Client() as client:
            found = [client.get(f"http://127.0.0.1:{lb.port('in')}/tight", timeout=60).status_code for _ in range(5)]
        assert found[2:] == [429] * 3
        expect(line).to_contain_text("limit tight (1/h for all together): 3 refused")
        expect(line).to_contain_text("limit wide (100/s by client_ip): 0 refused")
        assert complaints(shown.page) == []
        shown.check_clean()


def test_a_daemon_that_goes_is_told_and_one_that_comes_is_picked_up(
    chromium: Browser, origins: list[Origin], tmp_path: Path
) -> None:
    with daemon(config(*names(origins)), tmp_path) as lb, tab(chromium, url(lb)) as shown:
        page = shown.page
        expect(title(page)).to_have_text("All is well")
        lb.kill()
        expect(page.get_by_role("alert")).to_contain_text("No answer from lbproxy since")
        assert complaints(page) == []
        lb.start()
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.locator("#link-text")).not_to_have_text("no answer")
        expect(title(page)).to_have_text("All is well")
        shown.check_clean("net::ERR_")


def test_without_the_right_to_change_there_is_nothing_to_press(chromium: Browser, tmp_path: Path) -> None:
    tokens = {"ci": "s3cret", "eye": {"token": "look", "scope": "read"}}
    settings = config("127.0.0.1:9", admin={"tokens": tokens}, health_check="off")
    with daemon(settings, tmp_path) as lb, tab(chromium, url(lb)) as shown:
        page = shown.page
        drain = page.get_by_role("button", name="Drain 127.0.0.1:9 of predict")
        expect(page.locator("#rights")).to_contain_text("need a bearer token")
        expect(drain).to_have_count(0)
        for token, words in (("wrong", "The bearer token is wrong."), ("look", "The token eye may only read")):
            page.locator("#token").click()
            page.get_by_label("Token (empty: none)").fill(token)
            page.get_by_role("button", name="Use it").click()
            expect(page.get_by_text(words).first).to_be_visible()
            expect(drain).to_have_count(0)
            if token == "wrong":
                assert page.evaluate("sessionStorage.length") == 0
                page.get_by_role("button", name="Cancel").click()
        page.locator("#token").click()
        page.get_by_label("Token (empty: none)").fill("s3cret")
        page.get_by_role("button", name="Use it").click()
        expect(drain).to_be_visible()
        drain.click()
        expect(page.get_by_role("dialog")).to_contain_text("It is the last usable server of this pool")
        page.get_by_role("dialog").get_by_role("button", name="Drain").click()
        expect(title(page)).to_have_text("predict cannot serve")
        assert "by ci from 127.0.0.1" in lb.stderr
        shown.check_clean("401")


def test_three_hundred_servers(chromium: Browser, tmp_path: Path) -> None:
    settings = config("127.0.0.1:20001-20150", "127.0.0.2:20001-20150", health_check="off")
    with daemon(settings, tmp_path) as lb, tab(chromium, url(lb)) as shown:
        page = shown.page
        expect(page.locator("#count")).to_have_text("300 servers")
        expect(page.get_by_role("row")).to_have_count(51)
        page.get_by_label("Filter").fill("2:20150")
        expect(page.get_by_role("row")).to_have_count(2)
        expect(page.locator("#count")).to_have_text("1 of 300 servers")
        page.get_by_label("Filter").fill("nothing is called so")
        expect(page.get_by_text("No server here matches the filter.")).to_be_visible()
        page.get_by_label("Filter").fill("")
        page.get_by_role("button", name="Show 200 more of 300").click()
        expect(page.get_by_role("row")).to_have_count(251)
        shown.check_clean()


# --- the scripts, without a daemon ---

SCRIPT = """
async () => {
  const { Model } = await import("/dashboard/model.js");
  const { verdict } = await import("/dashboard/verdict.js");
  const { Parser } = await import("/dashboard/stream.js");
  const words = await import("/dashboard/words.js");
  return await (RUN)({ Model, verdict, Parser, words });
}
"""


@pytest.fixture(scope="module")
def scripts(chromium: Browser) -> Iterator[Page]:
    """A page from which the modules can be imported, and on which nothing runs."""
    with tab(chromium, "http://dashboard.test/", files=FOLDER) as shown:
        yield shown.page
        shown.check_clean()


def run(page: Page, code: str, argument: object = None) -> object:
    return page.evaluate(SCRIPT.replace("RUN", code).replace("async ()", "async (given)", 1), argument)


def server(name: str, state: str = "up", why: str = "", **more: object) -> dict[str, object]:
    base = {"name": name, "address": name, "admin": "ready", "state": state, "why": why, "since": 90.0, "inflight": 1}
    return {**base, "max_inflight": 2, "used": state == "up", "requests": 0, "errors": 0, "latency": 0.0, **more}


def status(*servers: dict[str, object], **pool: object) -> dict[str, object]:
    usable = sum(bool(item["used"]) for item in servers)
    queue = {"depth": 0, "size": 10, "oldest": None, "timeout": 10.0, "newest_first": False}
    first = {"name": "p", "usable": usable, "ready": True, "reason": None, "failing_open": False, "inflight": 0}
    return {
        "version": "1",
        "uptime": 5.0,
        "state": "running",
        "ready": True,
        "reason": None,
        "listeners": [],
        "pools": [{**first, "queue": queue, "names": [], "servers": list(servers), **pool}],
    }


RATES = {"rps": 10, "errors": 0, "error_ratio": 0, "p50": 0.1, "p99": 0.2, "p999": 0.3, "saturation": 0.5}
QUEUE = {"depth": 4, "size": 10, "oldest": 2.5, "timeout": 10.0}
SOURCE = {"source": "aws:asg:x", "servers": 2, "age": 90.0}
OUT = [server(f"s{number}", "down", "connection refused") for number in range(4)]
EJECTED = server("b", "ejected", "ejected 4 s ago: 5 consecutive resets, next probe in 6 s")


@pytest.mark.parametrize(
    ("told", "rates", "title", "lines"),
    [
        (status(server("a")), {}, "All is well", []),
        (status(server("a", "up"), EJECTED), {}, "Serving, but b is ejected", [
            "warn p/b: is ejected for 1 min 30 s: 5 consecutive resets, next probe in 6 s."]),
        (status(server("a"), server("b", "drain", "drained by ci from 127.0.0.1")), {}, "All is well", [
            "note p/b: is drained by ci from 127.0.0.1 for 1 min 30 s, with 1 still in flight."]),
        (status(server("a"), *OUT), {}, "Serving, but 4 of 5 servers of p are down", [
            "warn p: has 4 of 5 servers down: connection refused."]),
        (status(*OUT), {}, "p cannot serve", [
            "bad p: has no usable server: clients get 503.", "warn p: has 4 of 4 servers down: connection refused."]),
        (status(), {}, "p has no server", ["bad p: has no server: clients get 503."]),
        (status(server("a"), failing_open=True), {}, "Serving, but p fails open", [
            "warn p: fails open: too few servers pass their checks, so those that were up are used all the same."]),
        (status(server("a")), {"errors": 1, "error_ratio": 0.1}, "p: 10 % of the requests fail", [
            "bad p: has 10 % of its requests failing, 1.0 each second."]),
        (status(server("a")), {"errors": 0.2}, "Serving, but p: 2.0 % of the requests fail", [
            "warn p: has 2.0 % of its requests failing, 0.2 each second."]),
        (status(server("a")), {"rps": 1, "errors": 1}, "All is well", []),  # ten requests say little
        (status(server("a"), queue=QUEUE), {}, "Serving, but p is overloaded", [
            "warn p: is full: 4 requests of at most 10 wait, the oldest for 2 s."]),
        (status(server("a"), queue={**QUEUE, "depth": 9}), {}, "p is overloaded", [
            "bad p: is full: 9 requests of at most 10 wait, the oldest for 2 s."]),
        (status(server("a")), {"saturation": 0.95, "inflight": 19, "slots": 20}, "Serving, but p is nearly full", [
            "warn p: has 19 of its 20 slots taken; the next requests wait."]),
        (status(server("a"), discovery=[{**SOURCE, "error": None}]), {}, "All is well", []),
        (status(server("a"), discovery=[{**SOURCE, "error": "throttled"}]), {}, "Serving, but aws:asg:x has an error", [
            "warn p: aws:asg:x: throttled; its 2 servers of 1 min 30 s ago stay in use."]),
        (status(server("a"), discovery=[{**SOURCE, "age": None, "error": "401"}]), {},
            "Serving, but aws:asg:x has an error", ["warn p: aws:asg:x: 401; it has not brought a server yet."]),
        ({**status(server("a")), "state": "draining", "ready": False}, {}, "lbproxy is stopping", [
            "bad : lbproxy is stopping: it takes no new connections, and ends when its requests are done."]),
        ({**status(server("a")), "ready": False, "reason": "memory is short"}, {}, "/readyz says not ready", [
            "bad : /readyz says not ready: memory is short."]),
    ],
)  # fmt: skip
def test_the_verdict_in_words(
    scripts: Page, told: dict[str, object], rates: dict[str, object], title: str, lines: list[str]
) -> None:
    code = """({ Model, verdict }) => {
      const model = new Model(() => 0);
      model.apply("state", given.told);
      for (let t = 0; t < 10; t += 1) model.apply("rates", { t, pools: { p: given.rates }, servers: {} });
      const { title, problems } = verdict(model);
      const line = (one) => `${one.level} ${[one.pool, one.server].filter(Boolean).join("/")}: ${one.text}`;
      return [title, problems.map(line)];
    }"""
    assert run(scripts, code, {"told": told, "rates": {**RATES, **rates}}) == [title, lines]


def test_charts_have_a_point_for_five_seconds_and_ten_minutes(scripts: Page) -> None:
    code = """({ Model }) => {
      const model = new Model(() => 0);
      model.apply("state", given.told);
      for (let t = 0; t < 3000; t += 1) {
        model.apply("rates", { t, pools: { p: { ...given.rates, rps: t } }, servers: {} });
        model.apply("event", { t, kind: "flip", text: "" });
      }
      const { t, rps } = model.byName.get("p").history;
      return [t.length, t.at(-1) - t[0], rps[0] - t[0], model.events.length, model.byName.get("p").recent.length];
    }"""
    assert run(scripts, code, {"told": status(server("a")), "rates": RATES}) == [122, 605, -2, 200, 10]


def test_rates_are_made_of_counters_where_there_is_no_stream(scripts: Page) -> None:
    code = """({ Model }) => {
      let now = 0;
      const model = new Model(() => now);
      model.apply("status", given[0]);
      now = 2;
      model.apply("status", given[1]);
      const { rps, error_ratio, p99, saturation } = model.byName.get("p").rates;
      return [rps, error_ratio, p99, saturation, model.events.map((event) => event.text)];
    }"""
    later = status(server("a", requests=20, errors=5), server("b", "down", "connection refused"), inflight=1)
    given = [status(server("a"), server("b")), {**later, "uptime": 7.0}]
    assert run(scripts, code, given) == [10, 0.25, None, 0.5, ["b is down (connection refused), was up"]]


def test_events_are_read_in_whatever_pieces_they_come(scripts: Page) -> None:
    code = """({ Parser }) => {
      const found = [];
      const parser = new Parser((kind, data) => found.push([kind, data]));
      for (const piece of given) parser.feed(piece);
      return found;
    }"""
    first = 'retry: 2000\n\n: still here\n\nid: a-1\nevent: rates\ndata: {"t": 1}\n\n'
    text = first + 'event: event\ndata: {"a":\ndata: 2}\n\n'
    expected = [["rates", {"t": 1}], ["event", {"a": 2}]]
    assert run(scripts, code, [text]) == expected
    assert run(scripts, code, list(text)) == expected
    assert run(scripts, code, list(text.replace("\n", "\r\n"))) == expected
    assert run(scripts, code, [text[:-1]]) == expected[:1]


def test_numbers_in_words(scripts: Page) -> None:
    code = """({ words }) => [
      ...[null, 0, 0.00004, 0.0004, 0.0042, 0.042, 4.2, 420].map(words.latency),
      ...[null, 0, 59.9, 61, 600, 3700, 90000].map(words.lasting),
      ...[null, 0, 0.0001, 0.042, 0.42, 1].map(words.percent),
      ...[null, 0, 0.01, 4.2, 42, 42000].map(words.rate),
      ...[1000, 1, 0.5, 1 / 60, 1 / 3600, 10 / 86400, 0.000001].map(words.allowance),
    ]"""
    assert run(scripts, code) == [
        *("–", "0 ms", "<0.1 ms", "0.4 ms", "4.2 ms", "42 ms", "4.2 s", "420 s"),  # noqa: RUF001
        *("–", "0 s", "59 s", "1 min 1 s", "10 min", "1 h 1 min", "1 d 1 h"),  # noqa: RUF001
        *("–", "0 %", "<0.1 %", "4.2 %", "42 %", "100 %"),  # noqa: RUF001
        *("–", "0", "<0.1", "4.2", "42", "42,000"),  # noqa: RUF001
        *("1,000/s", "1/s", "30/min", "1/min", "1/h", "10/day", "0.086/day"),
    ]


def test_without_a_stream_the_status_is_asked_for(chromium: Browser) -> None:
    answers = {"/api/v1/status": json.dumps(status(server("a"), EJECTED))}
    with tab(chromium, "http://dashboard.test/", files=FOLDER, answers=answers) as shown:
        expect(shown.page.locator("#link-text")).to_have_text("every 2 s")
        expect(title(shown.page)).to_have_text("Serving, but b is ejected")
        shown.check_clean("404")


def test_a_latency_of_the_past_says_how_old_it_is(chromium: Browser) -> None:
    servers = [
        server("fresh", latency=0.042, latency_age=1.0),
        server("old", latency=0.042, latency_age=600.0),
        server("never", latency=0.0, latency_age=None),
    ]
    answers = {"/api/v1/status": json.dumps(status(*servers))}
    with tab(chromium, "http://dashboard.test/", files=FOLDER, answers=answers) as shown:
        for name, text in (("fresh", "42 ms"), ("old", "42 ms10 min ago"), ("never", "–")):  # noqa: RUF001
            row = shown.page.get_by_role("row").filter(has=shown.page.get_by_text(name, exact=True))
            expect(row.locator("td.latency")).to_have_text(text)
        assert shown.page.locator("td.latency span.muted", has_text="42 ms").count() == 1, "the old one is grey"


def test_a_tab_that_nobody_sees_takes_no_connection_for_itself(chromium: Browser) -> None:
    body = f"event: state\ndata: {json.dumps({**status(server('a')), 'recent': [], 'history': {}})}\n\n"
    answers = {"/api/v1/events": body, "/api/v1/status": json.dumps(status(server("a"), EJECTED))}
    with tab(chromium, "http://dashboard.test/", files=FOLDER, answers=answers) as shown:
        page = shown.page
        expect(title(page)).to_have_text("All is well")
        hide = "(is) => { Object.defineProperty(document, 'hidden', { value: is, configurable: true }); "
        hide += "document.dispatchEvent(new Event('visibilitychange')); }"
        page.clock.install()
        page.evaluate(hide, True)
        page.clock.run_for(31_000)
        expect(page).to_have_title("Serving, but b is ejected - lbproxy")
        page.evaluate(hide, False)
        page.clock.resume()
        expect(title(page)).to_have_text("All is well")
        shown.check_clean("404")


def test_names_are_text_and_nothing_else(chromium: Browser) -> None:
    evil = '<img src=x onerror="document.title=1">'
    limit = {"name": evil, "key": evil, "rate": 1, "burst": 1, "store": evil, "limited": 1, "open": 1}
    source = {**SOURCE, "source": evil, "error": evil}
    shown_status = {**status(server(evil, "down", evil), sticky=evil, discovery=[source]), "rate_limits": [limit]}
    told = {**shown_status, "recent": [{"t": 1.0, "kind": evil, "text": evil}], "history": {}}
    body = f"event: state\ndata: {json.dumps(told)}\n\n"
    with tab(chromium, "http://dashboard.test/", files=FOLDER, answers={"/api/v1/events": body}) as shown:
        expect(row(shown.page, evil)).to_contain_text(evil)
        for element in ("#event-list", "#limits", "#problems", "#cards"):
            expect(shown.page.locator(element)).to_contain_text(evil)
        assert shown.page.locator("img:not([src='/dashboard/icon.svg'])").count() == 0
        shown.check_clean("404")
