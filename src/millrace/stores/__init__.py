"""Values by key: in this process (`memory`), in a directory that many processes share (`directory`).

Each keeps the laws of `millrace.testing.stores`; what a value may be is said in `codecs`. Nothing here knows what a
key is computed from, or who asks.
"""
