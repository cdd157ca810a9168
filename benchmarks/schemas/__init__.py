"""Answers held to random schemas: `python -m benchmarks.schemas`."""
