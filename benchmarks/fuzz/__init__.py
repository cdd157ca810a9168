"""What strangers may send, mutated a million times: `python -m benchmarks.fuzz`."""
