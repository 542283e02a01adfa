"""What is known of servers, from one process to the next: out of the state file, or from the process before.

A process that takes over from another one gets from that what the file says, and more, so it does not read the file.
Only one of the two writes it: the one that serves. The old one stops when it says for the last time what it knows, and
goes on with it if the new one fails; the new one begins when it accepts. So what an upgrade that failed had in mind
never gets into the file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lbproxy.control.kept_data import Unreadable
from lbproxy.control.kept_state import UPGRADE, Json, KeptState
from lbproxy.control.state_file import StateFile
from lbproxy.tasks import Tasks


class Keeping:
    """See the module. config_path: of the config that runs; the path of a state file begins in its folder.

    path: of the state file, None for none. clock: monotonic seconds. count_error: for each write that failed.
    on_change: called when what is known is another than before.
    """

    def __init__(
        self,
        kept: KeptState,
        path: str | None,
        config_path: str,
        tasks: Tasks,
        clock: Callable[[], float],
        count_error: Callable[[], None],
    ) -> None:
        self._kept = kept
        self._config_path = config_path
        self._tasks = tasks
        self._clock = clock
        self._count_error = count_error
        self._serves = False
        self.on_change: Callable[[], None] = lambda: None
        self._path = path
        self._file = self._make_file(path)

    def _make_file(self, path: str | None) -> StateFile | None:
        if path is None:
            return None
        place = str(Path(self._config_path).parent / path)
        return StateFile(
            place,
            self._config_path,
            self._kept.snapshot,
            self._tasks,
            self._clock,
            self._count_error,
            is_ours=self._serves,
        )

    # --- what came before -------------------------------------------------------------------------------------------

    async def start(self, handed_over: object, event: str = UPGRADE) -> None:
        """Take up what is known. handed_over: what the process before says, None if there is none. event: UPGRADE or
        SUCCESSION. Raises Unreadable for that; a file that can't be read is a warning."""
        if handed_over is not None:
            self._kept.restore(handed_over, event)
        elif self._file is not None:
            state = await self._file.read()
            if state is not None:
                try:
                    self._kept.restore(state)
                except Unreadable as error:
                    self._file.ignore(str(error))

    def update(self, handed_over: object) -> None:
        """The last that the process before says; None: it is gone. Raises Unreadable."""
        self._kept.update(handed_over)

    # --- what comes next --------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """The file is this process's to write: another one has not, or not yet, taken over."""
        self._serves = True
        if self._file is not None:
            self._file.begin()

    def snapshot(self) -> Json:
        """For a process that takes over at once."""
        return self._kept.snapshot(with_well=True)

    async def last_snapshot(self) -> Json:
        """The same, and the file is the other one's to write, until `serve` is called again."""
        self._serves = False
        if self._file is not None:
            await self._file.pause()
        return self.snapshot()

    def let_go(self) -> None:
        """Another process serves, and has the file."""
        self._serves = False
        if self._file is not None:
            self._file.let_go()

    def use(self, path: str | None) -> None:
        """Another config may have another file; the one before stays as it is."""
        if path != self._path:
            if self._file is not None:
                self._file.let_go()
            self._path = path
            self._file = self._make_file(path)
        self.changed()

    def changed(self) -> None:
        """What is known is another than before."""
        self.on_change()
        if self._file is not None:
            self._file.changed()

    def told(self) -> Json | None:
        """For the status; None without a file."""
        return None if self._file is None else self._file.told()

    def tick(self, now: float) -> None:
        """Called now and then."""
        self._kept.settle()
        if self._file is not None:
            self._file.tick(now)

    async def stop(self) -> None:
        """The last write, if the file is this process's."""
        if self._file is not None:
            await self._file.stop()
