"""Numeric kernels of twin: heavy imports live here only."""
