"""The Python face: a file an analysis, with the same names, defaults and order as its spec and its command."""
