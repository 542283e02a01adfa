"""What several workers are worth, and what they cost: the numbers of docs/workers.md."""
