"""Offline jobs: a table in, the same table out with answers."""
