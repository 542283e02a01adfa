"""The access log's output, and how it becomes another one."""

from __future__ import annotations

from lbproxy.config.model import AccessLog as AccessLogConfig
from lbproxy.config.problems import Unusable
from lbproxy.telemetry.log_writer import LogWriter

CLOSE_S = 1.0


def open_access_log(config: AccessLogConfig | None) -> LogWriter | None:
    """A writer; None where there is to be no log. Raises Unusable."""
    if config is None:
        return None
    try:
        return LogWriter(config.path)
    except OSError as error:
        raise Unusable(("access_log", "path"), f"cannot open {config.path}: {error.strerror}") from None


class AccessLogs:
    """The one in use, and how many lines were lost in all. What is replaced is emptied by whoever gets it back."""

    def __init__(self, writer: LogWriter | None) -> None:
        self.writer = writer
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """Lines lost since the start."""
        return self._dropped_before + (self.writer.dropped if self.writer is not None else 0)

    def use(self, writer: LogWriter | None) -> LogWriter | None:
        """Write to another one from now on; the old one is returned, to be closed in a thread."""
        old, self.writer = self.writer, writer
        if old is not None:
            self._dropped_before += old.dropped
        return old
