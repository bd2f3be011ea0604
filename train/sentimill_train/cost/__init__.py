"""What a review costs, by a large model and by a student, and from which volume the student pays.

::

    prices.json, market.json, measured.json ─► rates ─► plan ─► verdict ─► command

Arithmetic over dated data files and the user's own numbers: no torch, no network.
"""
