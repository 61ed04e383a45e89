"""twin: a synthetic population that behaves like the real one, and what an intervention would do to it."""
