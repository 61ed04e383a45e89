"""Drivers: how replicas of a tier are started and let go, one file a place. None of them decides how many."""
