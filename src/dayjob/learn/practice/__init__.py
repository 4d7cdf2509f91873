"""Learning from practice: from trajectories to weights. What they were attempts at is not known here."""
