"""What a review costs by a large model and by a student, and from which volume the student pays.

::

    price tables, measured rate ─► prices ─► break_even ─► claims ─► report

This is arithmetic over dated data files and the user's own numbers: no torch, no network.
"""
