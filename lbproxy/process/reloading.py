"""What a reload of the config file would change, asked of the running process.

The file is read, checked and tried like at a start, in a thread: plug-ins are imported, certificates are loaded. Only
what is asked for is told; nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from lbproxy.config.loader import load_file
from lbproxy.config.model import Config
from lbproxy.config.problems import ConfigError
from lbproxy.control.status import Json
from lbproxy.process import rehearsal
from lbproxy.process.plan import Step, plan

NO_FILE = "lbproxy was started without a file that it could read again (run --to, or standard input)"


class Reloading:
    """config: the one in force; config_path: its file, "" or "-" if there is none. environ: for `${VAR}`."""

    def __init__(self, config: Config, config_path: str, environ: Mapping[str, str]) -> None:
        self._config = config
        self._path = config_path
        self._environ = environ
        self._lock = asyncio.Lock()

    async def dry_run(self) -> tuple[int, Json]:
        """200 and what a reload would do now, or 422 and what is wrong with the file. Two at once: the second waits."""
        if self._path in ("", "-"):
            return 422, {"problems": [NO_FILE]}
        async with self._lock:
            return await asyncio.to_thread(self._compare)

    def _compare(self) -> tuple[int, Json]:
        try:
            loaded = load_file(self._path, self._environ, checks_files=True)
        except ConfigError as error:
            return 422, {"problems": [str(problem) for problem in error.problems]}
        unusable = rehearsal.problems(loaded.config, config_path=self._path)
        if unusable:
            return 422, {"problems": [str(loaded.problem(error)) for error in unusable]}
        steps = plan(self._config, loaded.config)
        return 200, {
            "dry_run": True,
            "file": self._path,
            "steps": [shown(step) for step in steps],
            "warnings": [str(warning) for warning in loaded.warnings],
        }


def shown(step: Step) -> dict[str, object]:
    """A step as the API shows it."""
    changes = [{"key": change.key, "old": change.old, "new": change.new} for change in step.changes]
    return {"step": step.kind, "subject": step.subject, "changes": changes, "text": str(step)}
