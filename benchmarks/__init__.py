"""How fast the models are, side by side with their peers: `python -m benchmarks --help`."""
