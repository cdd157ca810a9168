"""What prompt lookup brings: `python -m benchmarks.speculation`."""
