"""Labelling: a large model, the teacher, labels each text once, within a budget.

::

    prompt ─► request loop ─► provider ─► response cache ─► parser ─► soft labels
               │ budget, rate limit        (raw, on disk)   (parsed at every read)

Every reply of a provider is stored unchanged and parsed each time it is read, so a better parser
also improves answers that are already paid for.
"""
