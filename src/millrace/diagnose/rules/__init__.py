"""Rules: pure functions from a `Case` to a `Finding`, or None where a run does not have the illness.

    idle      slots without a task: tail, starved, driver, start, lost, few slots
    work      time within tasks: small tasks, payload, repeated input, load, throttled, off-CPU, collector, threads
    pattern   how the work was laid out: duplicates, aggregation tasks, split groups, trials in threads

A rule speaks only above a threshold of its own, so that a healthy run has no finding.
"""
