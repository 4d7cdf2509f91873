"""The durable record: what was decided, what came of it, and which version serves.

Two files per data directory. ``journal.db`` (decisions, outcomes, vectors, catalogs) is written by the server alone,
through one thread (`store`). ``control.db`` (policies, pointers, jobs, leases, evidence, verdicts, secrets) takes
short transactions from any process (`control`). Weights lie beside them as folders (`versions`).
"""
