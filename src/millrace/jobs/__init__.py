"""Durable jobs: the table that is the truth about them, tiers and routing, queues, workers, the supervisor.

The queue moves jobs; an engine moves the tasks of one of them. Nothing here but `jobs.worker` knows how a run is built.
"""
