"""What a forest's leaves are cut into: the kinds of items, and how many bits a group has at most. Plain numbers, no kernels."""

GROUP, SINGLE, PAIRS, MERGED_PAIRS = range(4)
"""A subtree with a table, a leaf with one, a leaf by pairs of patterns, the same with equal patterns merged (see `tables`)."""

GROUP_BITS = 11
"""Most bits of a group."""
