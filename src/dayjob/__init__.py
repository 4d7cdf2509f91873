"""dayjob: a learning loop for deployed models."""

__version__ = "0.1.0"
