"""How many workers each tier has: the policy (pure), its signals, the loop, the drivers, and the simulator that replays a
trace through the same policy. Knows of jobs only what `signals` names.
"""
