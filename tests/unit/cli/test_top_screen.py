"""The screen of `lbproxy top`, without a terminal: what it shows, and what its keys ask for."""

from __future__ import annotations

from collections.abc import Mapping

from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from lbproxy._client import AdminError
from lbproxy.address import Address
from lbproxy.cli.changing import Lbproxy
from lbproxy.cli.top_screen import Question, TopApp

STATE: dict[str, object] = {
    "version": "1.2.3",
    "pools": [
        {
            "name": "p",
            "usable": 2,
            "servers": [
                {"name": "a", "state": "up", "health": "up", "inflight": 0},
                {"name": "b", "state": "up", "health": "up", "inflight": 3},
            ],
        }
    ],
    "recent": [{"t": 5.0, "text": "it began"}],
}
RATES = {"t": 6.0, "pools": {}, "servers": {"p/a": {"rps": 1.0}, "p/b": {"rps": 2.0}}}


class Api(Lbproxy):
    """Remembers what it is asked to change."""

    def __init__(self, error: str = "") -> None:
        super().__init__(Address("127.0.0.1", 8404), None)
        self.calls: list[tuple[str, str, object]] = []
        self.error = error

    def call(
        self, method: str, path: str, statuses: tuple[int, ...], body: object = None
    ) -> tuple[int, Mapping[str, object]]:
        self.calls.append((method, path, body))
        if self.error:
            raise AdminError(self.error)
        return 200, {}


def names(app: TopApp) -> list[str]:
    table = app.query_one(DataTable)
    return [table.get_row_at(y)[0].plain for y in range(table.row_count)]


def head(app: TopApp) -> str:
    return str(app.query_one("#head", Static).render())


async def show(app: TopApp, pilot: Pilot[int]) -> None:
    app.take("state", STATE)
    app.take("rates", RATES)
    await pilot.pause()


async def test_servers_are_shown_and_changes_of_them() -> None:
    app = TopApp(Api())
    async with app.run_test() as pilot:
        assert head(app) == "connecting ..."
        await show(app, pilot)
        assert names(app) == ["p/a", "p/b"]
        assert head(app).startswith("lbproxy 1.2.3: ready")
        assert "it began" in str(app.query_one("#events", Static).render())
        app.take("servers", {"pools": [{"name": "p", "servers": [{"name": "b", "state": "down", "inflight": 0}]}]})
        app.take("rates", RATES)
        row = app.query_one(DataTable).get_row_at(1)
        assert row[1].plain == "down"
        assert "red" in str(row[1].spans[0].style)


async def test_a_key_changes_the_chosen_server_after_a_yes() -> None:
    api = Api()
    app = TopApp(api)
    async with app.run_test() as pilot:
        await show(app, pilot)
        await pilot.press("down")
        for key in "drm":
            await pilot.press(key)
            assert isinstance(app.screen, Question)
            await pilot.press("y")
            await app.workers.wait_for_complete()
    path = "/api/v1/pools/p/servers/b"
    assert api.calls == [("PATCH", path, {"admin": word}) for word in ("drain", "ready", "maint")]


async def test_a_no_changes_nothing() -> None:
    api = Api()
    app = TopApp(api)
    async with app.run_test() as pilot:
        await show(app, pilot)
        await pilot.press("d", "enter")
        assert isinstance(app.screen, Question), "not by mistake"
        await pilot.press("n")
        await app.workers.wait_for_complete()
        assert not isinstance(app.screen, Question)
        assert api.calls == []


async def test_a_refusal_is_shown() -> None:
    app = TopApp(Api("401: pass its admin.token"))
    async with app.run_test() as pilot:
        await show(app, pilot)
        await pilot.press("d", "y")
        await app.workers.wait_for_complete()
        await pilot.pause()
        assert [(item.message, item.severity) for item in app._notifications] == [
            ("401: pass its admin.token", "error")
        ]


async def test_the_cursor_stays_at_its_server_when_the_order_changes() -> None:
    app = TopApp(Api())
    async with app.run_test() as pilot:
        await show(app, pilot)
        await pilot.press("down")
        for _ in range(3):
            await pilot.press("s")
        assert "sorted by inflight" in head(app)
        assert names(app) == ["p/b", "p/a"]
        assert app.query_one(DataTable).cursor_row == 0


async def test_a_filter_is_typed_and_taken_back() -> None:
    app = TopApp(Api())
    async with app.run_test() as pilot:
        await show(app, pilot)
        await pilot.press("slash", *"p/b", "enter")
        await pilot.pause()
        assert names(app) == ["p/b"]
        await pilot.press("escape")
        await pilot.pause()
        assert names(app) == ["p/a", "p/b"]
        assert app.query_one(Input).value == ""


async def test_a_lost_connection_leaves_what_was_known_and_says_so() -> None:
    app = TopApp(Api())
    async with app.run_test() as pilot:
        await show(app, pilot)
        app.lose("connection lost")
        assert head(app).endswith("connection lost")
        assert names(app) == ["p/a", "p/b"]
        app.take("rates", RATES)
        assert "connection lost" not in head(app)


async def test_it_fits_any_terminal_and_keys_without_a_server_do_nothing() -> None:
    app = TopApp(Api())
    async with app.run_test(size=(20, 6)) as pilot:
        await pilot.press("d")
        assert not isinstance(app.screen, Question)
        await show(app, pilot)
        await pilot.resize_terminal(200, 60)
        await pilot.pause()
        assert names(app) == ["p/a", "p/b"]
        await pilot.press("q")
    assert app.return_code == 0
