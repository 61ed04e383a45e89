"""The engine on a Dask cluster: one of its own on this machine, or one that exists already.

`engine` is the driver's side, `courier` its way to Dask, `host` what is on each Dask worker, `cluster` the connection and
the comparison of workers, `arena` the values that stay on the cluster. Tasks run in processes that our own fork server
holds on each worker (see `processes`), so that ceilings and deaths are the same as on one host.
"""

from millrace.engines.dask.cluster import Cluster, connect, start
from millrace.engines.dask.engine import DaskEngine

__all__ = ["Cluster", "DaskEngine", "connect", "start"]
