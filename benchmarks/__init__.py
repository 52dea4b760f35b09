"""Benchmarks: each prints ratios from one run and writes them as JSON below var/bench/."""
