"""Signals of a process without an event loop, in a process of its own: they are for a whole process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, select, signal
from lbproxy.process.workers.signals import Signals
signals = Signals()
signals.listen([signal.SIGUSR1, signal.SIGHUP])
assert signals.take() == []
for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1):
    os.kill(os.getpid(), number)
select.select([signals], [], [])
print(*(number.name for number in signals.take()))
print(signals.take())
signals.leave_to_parent()
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGUSR1)
print("ignored")
"""


def test_signals_are_noted_in_order_and_taken_once() -> None:
    ended = subprocess.run([sys.executable, "-P", "-c", CODE], check=True, capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["SIGUSR1 SIGHUP SIGUSR1", "[]", "ignored"]
