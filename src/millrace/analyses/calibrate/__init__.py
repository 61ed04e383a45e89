"""calibrate: fit a stochastic simulator to data.

spec (the question) and parts (its parameters and targets), question (functions found, data read, seeds), targets (outputs
aligned with observations, losses), simulating (what a worker does), loop (the one event loop) with trials, budgets, order and
sampling, analysis (the order of work), answer (the result), rescore, replay and probe (the other verbs), views (pictures),
kernels/ (the numeric work).
"""
