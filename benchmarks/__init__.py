"""Speed and memory of the models, compared with peer libraries: `python -m benchmarks --help`."""
