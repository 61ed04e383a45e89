"""The numeric work of refute. Heavy imports live here only."""
