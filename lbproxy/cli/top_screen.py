"""`lbproxy top` as a screen with keys, by textual: `pip install 'lbproxy[top]'`.

The stream is read by a thread of its own, which hands every message to the loop of the screen. What a key changes is
asked for by the API, after a question, in another thread: the screen never waits.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static

from lbproxy import _client
from lbproxy.address import Address
from lbproxy.cli import top_page
from lbproxy.cli.changing import Lbproxy, Target
from lbproxy.cli.common import FAILURE, OK, UsageError
from lbproxy.cli.top_feed import follow
from lbproxy.cli.top_view import SORTS, Row, View

EVENTS: Final = 8
_STYLES: Final = {
    "up": "green",
    "busy": "yellow",
    "probing": "yellow",
    "drain": "cyan",
    "maint": "cyan",
    "down": "bold red",
    "ejected": "bold red",
    "unresolved": "red",
}
_VERBS: Final = {"drain": "Drain", "ready": "Make ready", "maint": "Take into maintenance"}


class Question(ModalScreen[bool]):
    """Yes or no."""

    CSS = """
    Question { align: center middle; }
    Question Vertical { width: auto; max-width: 90%; height: auto; padding: 1 3; border: round $accent; }
    Question Static { width: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Vertical(Static(Text(f"{self._text}\n\ny: yes   n: no")))

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class TopApp(App[int]):
    """The screen. lbproxy: who is asked for changes. error: what ended it, "" if the user did."""

    TITLE = "lbproxy top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head, #events { height: auto; padding: 0 1; }
    #events { color: $text-muted; border-top: solid $panel; }
    #filter { display: none; }
    #filter.is-open { display: block; }
    DataTable { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "change('drain')", "Drain"),
        Binding("r", "change('ready')", "Ready"),
        Binding("m", "change('maint')", "Maint"),
        Binding("s", "sort", "Sort"),
        Binding("slash", "filter", "Filter"),
        Binding("escape", "unfilter", "All", show=False),
        Binding("q,ctrl+c", "quit", "Quit"),
    ]

    def __init__(self, lbproxy: Lbproxy, sort: str = SORTS[0], wanted: str = "") -> None:
        super().__init__()
        self.view = View()
        self.error = ""
        self._lbproxy = lbproxy
        self._sort = sort
        self._wanted = wanted
        self._lost = ""
        self._shown: list[Target] = []

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield DataTable[Text](id="servers", cursor_type="row", zebra_stripes=True)
        yield Input(id="filter", value=self._wanted, placeholder="pool, server, address or state")
        yield Static(id="events")
        yield Footer()

    def on_mount(self) -> None:
        self._table.add_columns(*top_page.COLUMNS)
        self._table.focus()
        self._draw()

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#servers", DataTable)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def take(self, kind: str, data: object) -> None:
        """A message of the stream."""
        self._lost = ""
        self.view.take(kind, data)
        if kind in ("state", "rates"):
            self._draw()

    def lose(self, why: str) -> None:
        """The connection is lost; what was known last stays on the screen."""
        self._lost = why
        self._draw()

    def fail(self, why: str) -> None:
        """There never was a connection."""
        self.error = why
        self.exit(FAILURE)

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        view = self.view
        head = [top_page.process_line(view), *top_page.pool_lines(view)] if view.status else ["connecting ..."]
        head += [f"sorted by {self._sort}"] if self._sort != SORTS[0] else []
        head += [f"only {self._wanted}"] if self._wanted else []
        text = Text("\n".join(head))
        if self._lost:
            text.append(f"\n{self._lost}", "bold red")
        self.query_one("#head", Static).update(text)
        self.query_one("#events", Static).update(Text("\n".join(top_page.event_lines(view, EVENTS))))
        self._fill(view.rows(self._sort, self._wanted))

    def _fill(self, rows: list[Row]) -> None:
        """The cursor stays at its server."""
        table, chosen = self._table, self._chosen()
        targets = [row.target for row in rows]
        if targets == self._shown:
            for y, row in enumerate(rows):
                for x, cell in enumerate(_cells(row)):
                    table.update_cell_at((y, x), cell, update_width=True)  # type: ignore[arg-type]  # a tuple will do
            return
        table.clear()
        for row in rows:
            table.add_row(*_cells(row))
        self._shown = targets
        if chosen in targets:
            table.move_cursor(row=targets.index(chosen))

    def _chosen(self) -> Target | None:
        y = self._table.cursor_row
        return self._shown[y] if 0 <= y < len(self._shown) else None

    # --- keys -------------------------------------------------------------------------------------------------------

    def action_sort(self) -> None:
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._draw()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.add_class("is-open")
        box.focus()

    def action_unfilter(self) -> None:
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("is-open")
        self._table.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._wanted = event.value
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.input.remove_class("is-open")
        self._table.focus()

    def action_change(self, word: str) -> None:
        target = self._chosen()
        if target is None:
            return
        self.push_screen(Question(f"{_VERBS[word]} {target}?"), partial(self._answered, target, word))

    def _answered(self, target: Target, word: str, answer: bool | None) -> None:
        if answer:
            self.run_worker(partial(self._change, target, word), thread=True, exit_on_error=False)

    def _change(self, target: Target, word: str) -> None:
        """In a thread of its own."""
        try:
            self._lbproxy.call("PATCH", target.path, (200,), {"admin": word})
        except (_client.AdminError, UsageError) as error:
            self.call_from_thread(self.notify, str(error), severity="error", markup=False)
        else:
            self.call_from_thread(self.notify, f"{target}: {word}", markup=False)


def _cells(row: Row) -> list[Text]:
    named = zip(top_page.COLUMNS, top_page.cells(row), strict=True)
    texts = [Text(cell, justify="left" if name in top_page.TO_THE_LEFT else "right") for name, cell in named]
    texts[1].stylize(_STYLES.get(texts[1].plain, ""))
    return texts


def run(address: Address, token: str | None, timeout_s: float, sort: str, wanted: str) -> int:
    """Show the screen until the user leaves. Raises AdminError if there never was a connection."""
    app = TopApp(Lbproxy(address, token), sort, wanted)

    def read() -> None:
        try:
            for kind, data in follow(address, token, timeout_s, lose, time.sleep):
                app.call_from_thread(app.take, kind, data)
        except _client.AdminError as error:
            app.call_from_thread(app.fail, str(error))
        except RuntimeError:
            pass  # the screen is closed

    def lose(why: str) -> None:
        app.call_from_thread(app.lose, why)

    reader = threading.Thread(target=read, name="top", daemon=True)
    app.call_later(reader.start)
    status = app.run()
    if app.error:
        raise _client.AdminError(app.error)
    return OK if status is None else status
