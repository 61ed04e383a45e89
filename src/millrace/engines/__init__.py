"""Where tasks run: in this process (`inline`), in worker processes (`processes`), first here and then there (`auto`), or on a
Dask cluster (`dask`).

Each keeps the laws of `millrace.testing.engines`. Nothing here knows an analysis or chooses a store.
"""
