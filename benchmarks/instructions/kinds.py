"""The kinds of requests in the trace, and how many there are of each."""

from typing import Final

# No two heads the same; one request again and again whose answers differ in date and length; all the same.
KINDS: Final = ("real", "answers", "repeated")
WARM: Final = 100  # before anything is counted
# With WARM fewer than the lines of a batch of the access log: no other thread wakes up in between.
COUNTED: Final = 400
