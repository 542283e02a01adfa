"""Settings of the demo's predict servers. gunicorn ignores names that its version does not know."""

import os
import signal

from lbproxy.demo.children import end_with_parent


def post_fork(_server: object, _worker: object) -> None:
    """A worker ends with its master, also when that was killed; by itself it would notice after a second or later."""
    end_with_parent(signal.SIGKILL, _MASTER)


_MASTER = os.getpid()  # read by the master, before it forks

# One process with four threads: a server that does a few predictions at once, as a model that shares its memory does.
workers = 1
threads = 4
# gthread keeps connections open for lbproxy to reuse; the default of 2 s would close most of them between requests.
keepalive = 30
graceful_timeout = 5
loglevel = "warning"
# A socket file in the working directory would stay behind when a server is killed.
control_socket_disable = True
