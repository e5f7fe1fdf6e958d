"""Training of the real-bogus classifiers: `python -m benchmarks.train`."""
