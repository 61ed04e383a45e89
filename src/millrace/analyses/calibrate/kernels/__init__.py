"""The numeric work of calibrate: pure functions on arrays, seeded by the generators that they are given."""
