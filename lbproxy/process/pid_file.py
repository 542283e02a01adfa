"""`--pid-file`: a file with the id of the process that serves, for those who send it signals.

It appears when the process serves, whole; follows an upgrade; and is removed by whoever it names, and nobody else.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

log = logging.getLogger("lbproxy")

MODE = 0o644


class PidFile:
    """path: where it will be. pid: of this process."""

    def __init__(self, path: str, pid: int) -> None:
        self._path = Path(path)
        self._pid = pid
        self._part = self._path.with_name(f".{self._path.name}.{pid}")

    def prepare(self) -> None:
        """Make sure that it can be written. Raises OSError. Nothing is left, as this process may be killed before it
        serves."""
        self._write()
        self._part.unlink()

    def _write(self) -> None:
        """Raises OSError."""
        if self._path.is_dir():
            raise IsADirectoryError(21, "is a directory")
        self._part.write_text(f"{self._pid}\n")
        self._part.chmod(MODE)

    def take(self) -> None:
        """This process serves: the file names it."""
        try:
            self._write()
            self._part.replace(self._path)
        except OSError as error:
            log.warning("pid file %s: cannot write it: %s", self._path, error.strerror)

    def remove(self) -> None:
        """This process ends."""
        with contextlib.suppress(OSError):  # it never was
            self._part.unlink()
        try:
            if self._path.read_text().strip() == str(self._pid):
                self._path.unlink()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            log.warning("pid file %s: cannot remove it: %s", self._path, error)
