"""Measures the gateway beside direct `ssh` and `ssh -J`, in one run on one machine.

`python -m benchmarks` (or `make bench`); see `benchmarks/README.md`.
"""
