"""The one exception of the load benchmark."""


class BenchmarkError(Exception):
    """The measurement cannot start, or what it measured must not be believed. The text is a sentence for the user."""
