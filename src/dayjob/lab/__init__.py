"""Reproducible benchmarks: one file and one command each, results as tables, JSON and plots."""
