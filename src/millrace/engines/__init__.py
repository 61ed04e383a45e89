"""Where tasks run: in this process (`inline`), in worker processes (`processes`), or first here and then there (`auto`).

Each keeps the laws of `millrace.testing.engines`. Nothing here knows an analysis or chooses a store.
"""
