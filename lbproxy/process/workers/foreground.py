"""lbproxy with several workers, from its start to its exit status."""

from __future__ import annotations

from collections.abc import Callable

from lbproxy.config.loader import Kept
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.process.outside import Outside
from lbproxy.process.worker import StartError, not_started
from lbproxy.process.workers.supervisor import Supervisor
from lbproxy.telemetry import log as operator_log


def run(
    config: Config,
    shown: Callable[[Unusable], str],
    *,
    config_path: str = "",
    kept: Kept | None = None,
    outside: Outside | None = None,
    n_workers: int,
) -> int:
    """Run lbproxy with several workers in the foreground; the exit status. The rest: see process/worker.py."""
    outside = outside or Outside()
    handler = operator_log.configure_direct(config.log.level, config.log.format, "supervisor")
    try:
        status = Supervisor(config, shown, config_path, kept, outside, n_workers).run()
        return outside.keeper.keep() if outside.keeper is not None and outside.is_over else status
    except StartError as error:
        return not_started(error, outside)
    finally:
        outside.ended()
        handler.close()
