"""The kinds of requests in the trace, and how many there are of each."""

from typing import Final

HTTP1: Final = ("real", "answers", "repeated")
"""No two heads the same; one request again and again whose answers differ in date and length; all the same."""
HTTP2: Final = ("h2", "h2_unique", "grpc")
"""HTTP/2 on both sides: all the same; a new trace id and time-out in each; unary calls of gRPC, likewise new."""
WORKERS: Final = ("one", "worker", "one_slots", "worker_slots")
"""Several servers, with one process and as one of two workers; the same with limits and a queue."""
CLOSE: Final = "close"
"""HTTP/1.1 with a connection of the kernel's for each request, all the same."""
TCP: Final = "tcp"
"""TCP mode, with a connection of the kernel's to client and server for each request."""
KINDS: Final = (*HTTP1, *HTTP2, CLOSE, TCP, *WORKERS)
WARM: Final = 100  # before anything is counted
# With WARM fewer than the lines of a batch of the access log: no other thread wakes up in between.
COUNTED: Final = 400
