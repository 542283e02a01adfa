"""A flow of splice.py that a test moves by hand."""

from __future__ import annotations

import asyncio

from lbproxy.dataplane.net import splice


class FakeFlow(splice.Flow):
    """Stands for splice.Flow. The test says what the kernel moved, and how it ended."""

    def __init__(self, owner: splice.Owner, left: int) -> None:
        self.owner: splice.Owner = owner
        self.left = left
        self.pending = 0
        self.is_closed = False
        self.n_runs = 0

    @property
    def is_blocked(self) -> bool:
        return self.pending > 0

    def run(self) -> None:
        self.n_runs += 1

    def give_up(self) -> bool:
        if not self.pending:
            self.close()
        return not self.pending

    def close(self) -> None:
        self.is_closed = True

    def moves(self, size: int, *, pending: int = 0) -> None:
        """So much was taken from the source, and so much of all that is not with the sink yet."""
        self.left -= size
        self.pending = pending
        if self.left:
            self.owner.flow_moved(size, is_blocked=pending > 0)
            return
        self.close()
        self.owner.flow_moved(size, is_blocked=False)
        self.owner.flow_ended()

    def ends(self) -> None:
        """The source's FIN is there."""
        self.close()
        self.owner.flow_ended()

    def fails(self, *, at_source: bool) -> None:
        self.close()
        self.owner.flow_failed(ConnectionResetError(104, "reset"), at_source=at_source)


class FakeKernel(splice.PipePool):
    """Stands for splice.PipePool: gives out flows that the test moves."""

    def __init__(self) -> None:
        super().__init__(limit=10)
        self.flows: list[FakeFlow] = []
        self.is_out_of_pipes = False

    def open_flow(
        self,
        loop: asyncio.AbstractEventLoop,
        source: asyncio.Transport,
        sink: asyncio.Transport,
        owner: splice.Owner,
        left: int = splice.UNBOUNDED,
    ) -> FakeFlow | None:
        if self.is_out_of_pipes:
            return None
        assert sink.get_write_buffer_size() == 0, "bytes in the transport would come after those in the pipe"
        self.flows.append(FakeFlow(owner, left))
        return self.flows[-1]

    @property
    def flow(self) -> FakeFlow:
        """The latest one."""
        return self.flows[-1]
