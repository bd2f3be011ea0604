"""Compares the costs of a large model and of a student, and finds the break-even volume.

::

    price tables, measured rate ─► prices ─► break_even ─► claims ─► report

It needs only dated data files and the user's numbers: no torch, no network.
"""
