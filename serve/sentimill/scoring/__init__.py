"""Offline jobs: read a table, and write the same table with answers."""
