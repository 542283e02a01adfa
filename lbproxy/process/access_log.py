"""The access log's output, and how it becomes another one."""

from __future__ import annotations

from lbproxy.config.model import AccessLog as AccessLogConfig
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.recent import RecentLines

CLOSE_S = 1.0


def open_access_log(config: AccessLogConfig | None, *, is_shared: bool = False) -> LogWriter | None:
    """A writer; None where there is to be no log. is_shared: with other processes. Raises Unusable."""
    if config is None:
        return None
    try:
        return LogWriter(config.path, is_shared=is_shared)
    except OSError as error:
        raise Unusable(("access_log", "path"), f"cannot open {config.path}: {error.strerror}") from None


class AccessLogs:
    """The one in use, and how many lines were lost in all. What is replaced is emptied by whoever gets it back.

    recent: the last lines, None if nobody could ask for one. format: None: there is no log.
    """

    def __init__(self, writer: LogWriter | None, config: Config | None) -> None:
        self.writer: LogWriter | None = None
        self.recent: RecentLines | None = None
        self.format: str | None = None
        self._dropped_before = 0
        self._n_recent = 0
        self.use(writer, config)

    @property
    def dropped(self) -> int:
        """Lines lost since the start."""
        return self._dropped_before + (self.writer.dropped if self.writer is not None else 0)

    def use(self, writer: LogWriter | None, config: Config | None) -> LogWriter | None:
        """Write to this one from now on, as the config has it; if it is another one, the old one is returned, to be
        closed in a thread."""
        old, self.writer = self.writer, writer
        settings = config.access_log if config is not None else None
        self.format = settings.format if settings is not None else None
        n_recent = kept_lines(config) if config is not None else 0
        if n_recent != self._n_recent:
            self.recent = RecentLines(n_recent) if n_recent else None
            self._n_recent = n_recent
        if writer is not None:
            writer.recent = self.recent
        if old is None or old is writer:
            return None
        self._dropped_before += old.dropped
        return old


def kept_lines(config: Config) -> int:
    """How many of the last lines are kept: none if nobody could ask for one."""
    settings = config.access_log
    can_be_asked = config.admin.bind is not None and settings is not None and settings.format == "json"
    return config.admin.recent if can_be_asked else 0
