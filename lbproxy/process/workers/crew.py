"""The workers, as the controller knows them: who can be spoken to, and how all of them take up another config."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Final

from lbproxy.config.model import Config
from lbproxy.process.applying import CannotApply
from lbproxy.process.workers import messages
from lbproxy.process.workers.board import DRAINING, SERVING, STARTING, Board, name_of
from lbproxy.process.workers.channel import Channel, Failed
from lbproxy.process.workers.lines import Line, Said
from lbproxy.process.workers.usage import Usage, usage_of
from lbproxy.tasks import Tasks

log = logging.getLogger("lbproxy")

CONFIRM_S: Final = 5.0
PREPARE_S: Final = 30.0
"""Files are read and plug-ins are imported in it, on a busy machine."""
_STATES: Final = {STARTING: "starting", SERVING: "serving", DRAINING: "draining"}
Json = dict[str, object]


class Crew:
    """heard: what a worker says that is not for the crew, with its number. config: the one in force.

    usage_of: what the process with this id costs; tests replace it.
    """

    def __init__(
        self,
        board: Board,
        line: Line,
        config: Config,
        generation: int,
        heard: Callable[[int, object], None],
        tasks: Tasks,
        failed: Failed,
    ) -> None:
        self._board = board
        self.usage_of: Callable[[int], Usage | None] = usage_of
        self._line = line
        self._config = config
        self.generation = generation
        self._heard_other = heard
        self._tasks = tasks
        self._failed = failed
        self._channels: dict[int, Channel] = {}
        self._answers: dict[int, messages.Prepared | messages.Committed] = {}
        self._late: set[int] = set()  # workers that began with the config before, or missed the last one
        self._news = asyncio.Event()

    # --- who is there -----------------------------------------------------------------------------------------------

    def peer(self, said: Said) -> None:
        """A worker can be spoken to."""
        self._tasks.spawn(self._connect(int(said.data), said.fds[0]), "worker")

    async def _connect(self, number: int, fd: int) -> None:
        channel = Channel(
            lambda message: self.heard(number, message), lambda ended: self.left(number, ended), self._failed
        )
        self.join(number, channel)
        await channel.open(socket.socket(fileno=fd))

    def join(self, number: int, channel: Channel) -> None:
        """Speak to a worker by this from now on."""
        old, self._channels[number] = self._channels.get(number), channel
        if old is not None:
            old.close()

    def left(self, number: int, channel: Channel) -> None:
        """That is over."""
        if self._channels.get(number) is channel:
            del self._channels[number]
            self._late.discard(number)
            self._news.set()

    @property
    def members(self) -> set[int]:
        """Numbers of the workers that can be spoken to."""
        return set(self._channels)

    def tell(self, message: object) -> None:
        """To all."""
        for channel in self._channels.values():
            channel.send(message)

    def heard(self, number: int, message: object) -> None:
        """A worker says something."""
        match message:
            case messages.Hello(generation=generation):
                if generation != self.generation:
                    self._late.add(number)
                    self._say(number, messages.Prepare(self.generation, self._config))
                self._say(number, messages.Welcome())
            case messages.Prepared() if number in self._late:
                self._catch_up(number, message)
            case messages.Committed() if number in self._late:
                self._late.discard(number)
            case messages.Prepared() | messages.Committed():
                self._answers[number] = message
                self._news.set()
            case _:
                self._heard_other(number, message)

    def _catch_up(self, number: int, answer: messages.Prepared) -> None:
        if answer.problem:
            log.error("%s can't take up the config in force: %s", name_of(number), answer.problem)
            self._replace(number)
        else:
            self._say(number, messages.Commit(answer.generation))

    def _say(self, number: int, message: object) -> None:
        channel = self._channels.get(number)
        if channel is not None:
            channel.send(message)

    # --- another config ---------------------------------------------------------------------------------------------

    async def prepare(self, config: Config, doors: tuple[str, ...]) -> int:
        """Have every worker make it; its generation. Raises CannotApply if one can't; nobody keeps to it then."""
        generation = self.generation + 1
        asked = self._asked(messages.Prepare(generation, config, doors))
        problem = ""
        try:
            await self._answered(asked, generation, PREPARE_S)
        except TimeoutError:
            silent = [number for number in asked if number not in self._answers]
            problem = f"{', '.join(map(name_of, silent))} did not answer in {PREPARE_S:g} s"
        for number, answer in self._answers.items():
            if isinstance(answer, messages.Prepared) and answer.problem:
                problem = problem or f"{name_of(number)}: {answer.problem}"
        if problem:
            self.forget(generation)
            raise CannotApply(problem)
        return generation

    def forget(self, generation: int) -> None:
        """It is not wanted."""
        self.tell(messages.Commit(generation, is_wanted=False))

    async def commit(self, config: Config, generation: int) -> None:
        """Put it in force in all. Who does not say in CONFIRM_S that it is, is replaced."""
        self._config, self.generation = config, generation
        asked = [number for number in self._channels if number in self._answers]
        self._answers.clear()
        for number in self._channels:
            if number in asked:
                self._say(number, messages.Commit(generation))
            else:  # it began meanwhile
                self._late.add(number)
                self._say(number, messages.Prepare(generation, config))
        try:
            await self._answered(asked, generation, CONFIRM_S)
        except TimeoutError:
            for number in [number for number in asked if number in self._channels and number not in self._answers]:
                log.error("%s did not take up the config in %g s: it is replaced", name_of(number), CONFIRM_S)
                self._replace(number)

    def _asked(self, message: object) -> list[int]:
        self._answers.clear()
        self.tell(message)
        return list(self._channels)

    async def _answered(self, asked: list[int], generation: int, most_s: float) -> None:
        """Until all that are still there have. Raises TimeoutError."""
        async with asyncio.timeout(most_s):
            while any(True for _ in self._missing(asked, generation)):
                self._news.clear()
                await self._news.wait()

    def _missing(self, asked: list[int], generation: int) -> Iterator[int]:
        for number in asked:
            answer = self._answers.get(number)
            if number in self._channels and (answer is None or answer.generation != generation):
                yield number

    def _replace(self, number: int) -> None:
        self._line.say("replace", b"%d" % number)

    def overloaded(self) -> str | None:
        """Why a worker takes no new requests, None if all do."""
        for number in self._board.workers:
            n_bytes = self._board.refuses_at(number)
            if n_bytes:
                return f"overloaded: {n_bytes >> 20} MiB wait to be sent in {name_of(number)} (limits.buffered_bytes)"
        return None

    # --- metrics ----------------------------------------------------------------------------------------------------

    def up(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_worker_up."""
        for number in self._board.workers:
            yield (str(number),), float(self._board.is_serving(number))

    def restarts(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_worker_restarts_total."""
        for number in self._board.workers:
            yield (str(number),), float(self._board.restarts(number))

    def cpu_seconds(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_worker_cpu_seconds_total; none of a worker that is gone at this moment."""
        for number, used in self._usages():
            yield (str(number),), used.cpu_s

    def memory(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_worker_resident_memory_bytes."""
        for number, used in self._usages():
            yield (str(number),), float(used.rss)

    def _usages(self) -> Iterator[tuple[int, Usage]]:
        for number in self._board.workers:
            used = self.usage_of(self._board.pid(number))
            if used is not None:
                yield number, used

    def told(self, now: float, connections: Callable[[int], int]) -> list[Json]:
        """For `status`: a row for each. connections: how many clients a worker has. now: monotonic seconds."""
        rows: list[Json] = []
        for number in self._board.workers:
            pid = self._board.pid(number)
            used = self.usage_of(pid)
            rows.append(
                {
                    "worker": number,
                    "pid": pid or None,
                    "state": _STATES[self._board.state(number)] if pid else "down",
                    "connections": connections(number),
                    "cpu_seconds": None if used is None else round(used.cpu_s, 2),
                    "memory_bytes": None if used is None else used.rss,
                    "silent": round(self._board.silent_s(number, now), 3) if pid else None,
                    "restarts": self._board.restarts(number),
                }
            )
        return rows
