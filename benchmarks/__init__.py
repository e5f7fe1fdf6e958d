"""What the survey costs and how true its numbers are: `python -m benchmarks speed`, `python -m benchmarks accuracy`."""
