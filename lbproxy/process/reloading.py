"""Reading the config file again while lbproxy runs: what it would change, and changing it.

The file is read, checked and tried like at a start, in a thread: plug-ins are imported, certificates are loaded. If
anything is wrong the config in force stays, and every problem is told with its place. Two reloads at once: the second
waits.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from lbproxy.config.loader import Kept, Loaded, load_file
from lbproxy.config.model import Config
from lbproxy.config.problems import ConfigError, Unusable
from lbproxy.control.status import Json
from lbproxy.process import rehearsal
from lbproxy.process.applying import CannotApply
from lbproxy.process.plan import Step, plan
from lbproxy.telemetry.slots import PROCESS, Row

log = logging.getLogger("lbproxy")

NO_FILE = "lbproxy was started without a file that it could read again (run --to, or standard input)"
TURN_S = 0.0005
SHOWN = 8  # steps, and problems, that the log names
_OK = PROCESS.column("config_reloads_total", "success")
_FAILED = PROCESS.column("config_reloads_total", "failure")

Apply = Callable[[Config, Config], Awaitable[None]]


class Reloading:
    """config: the one in force, also afterwards. config_path: its file, "" or "-" if there is none. environ: for
    `${VAR}`. apply(old, new): see Applying. row: the PROCESS counters. wall: Unix seconds.

    tell: called with what a reload did, and who asked for it. kept: what the start read of the file. digest: of the
    very octets that were read at the start or by the last reload, as the file may be another one a moment later. lock:
    whoever holds it keeps reloads waiting.
    """

    def __init__(
        self,
        config: Config,
        config_path: str,
        environ: Mapping[str, str],
        apply: Apply,
        row: Row,
        tell: Callable[[str, str], None] = lambda text, by: None,
        wall: Callable[[], float] = time.time,
        kept: Kept | None = None,
    ) -> None:
        self.config = config
        self._path = config_path
        self._environ = environ
        self._apply = apply
        self._row = row
        self._tell = tell
        self._wall = wall
        self._kept = kept if kept is not None else Kept()
        self.lock = asyncio.Lock()
        self.digest = self._kept.digest
        self.is_last_good = True
        self.good_since = wall()

    async def dry_run(self) -> tuple[int, Json]:
        """200 and what a reload would do now, or 422 and what is wrong with the file."""
        async with self.lock:
            read = await self._read()
            if isinstance(read, list):
                return 422, {"problems": read}
            return 200, {"dry_run": True, **self._told(read, plan(self.config, read.config))}

    async def reload(self, by: str) -> tuple[int, Json]:
        """200 and what was done, or 422 and what is wrong; then nothing has changed. by: who asked, for the log."""
        async with self.lock:
            begun = time.monotonic()
            read = await self._read()
            self.digest = self._kept.digest  # a dry run takes nothing over: what it has read is still news
            read_s = time.monotonic() - begun
            if isinstance(read, list):
                return self._failed(read, by)
            steps = plan(self.config, read.config)
            try:
                await self._apply(self.config, read.config)
            except Unusable as error:
                return self._failed([str(read.problem(error))], by)
            except CannotApply as error:
                return self._failed([str(error)], by)
            self.config = read.config
            self.is_last_good, self.good_since = True, self._wall()
            self._row[_OK] += 1
            took_s = time.monotonic() - begun
            summary = _summary(steps)
            log.info("reload: %s, in %.0f ms, by %s", summary, 1000 * took_s, by)
            self._tell(f"reload: {summary}", by)
            for warning in read.warnings:
                log.warning("%s", warning)
            told = self._told(read, steps)
            return 200, {"dry_run": False, **told, "seconds": {"total": round(took_s, 4), "read": round(read_s, 4)}}

    def _failed(self, problems: Sequence[str], by: str) -> tuple[int, Json]:
        self.is_last_good = False
        self._row[_FAILED] += 1
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        told = f"the config file cannot be used, the one in force stays: {'; '.join(problems[:SHOWN])}{more}"
        log.warning("reload by %s: %s", by, told)  # not an error of lbproxy's own
        self._tell(f"reload: {told}", by)
        return 422, {"problems": list(problems)}

    async def _read(self) -> Loaded | list[str]:
        """The file, or what is wrong with it."""
        if self._path in ("", "-"):
            return [NO_FILE]
        # The interpreter runs one thread at a time. What serves gets its turn ten times as soon as usual meanwhile.
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(TURN_S)
        try:
            return await asyncio.to_thread(self._read_file)
        finally:
            sys.setswitchinterval(usual_s)

    def _read_file(self) -> Loaded | list[str]:
        try:
            loaded = load_file(self._path, self._environ, checks_files=True, kept=self._kept)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        unusable = rehearsal.problems(loaded.config, config_path=self._path)
        return [str(loaded.problem(error)) for error in unusable] or loaded

    def _told(self, read: Loaded, steps: Sequence[Step]) -> Json:
        return {
            "file": self._path,
            "steps": [shown(step) for step in steps],
            "warnings": [str(warning) for warning in read.warnings],
        }

    # --- metrics ----------------------------------------------------------------------------------------------------

    def was_successful(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_config_last_reload_successful."""
        yield (), float(self.is_last_good)

    def succeeded_at(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Values of lbproxy_config_last_reload_success_timestamp_seconds."""
        yield (), self.good_since


def _summary(steps: Sequence[Step]) -> str:
    if not steps:
        return "nothing differs"
    more = f"; and {len(steps) - SHOWN} more" if len(steps) > SHOWN else ""
    return "; ".join(map(str, steps[:SHOWN])) + more


def shown(step: Step) -> dict[str, object]:
    """A step as the API shows it."""
    changes = [{"key": change.key, "old": change.old, "new": change.new} for change in step.changes]
    return {"step": step.kind, "subject": step.subject, "changes": changes, "text": str(step)}
