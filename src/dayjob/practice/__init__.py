"""Practice: environments with a reward that can be checked, the sandbox, rollouts, and which tasks come next.

Knows nothing of learning, serving or the journal: whoever assembles hands it an actor and takes trajectories away.
"""
