"""The teacher: a frontier model that is asked for its judgement, once a text, within a budget.

::

    prompt ─► ask ─► client ─► store ─► answers ─► shares
               │ budget, pace      (raw, durable)   (parsed anew at every read)

Everything that a provider sends back is kept as it came. What it means is worked out when it is
read, so that a better parser profits from answers already paid for.
"""
