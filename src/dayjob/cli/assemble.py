"""Handing parts to each other: which loader makes a ranker of a version, which recipes there are."""

from pathlib import Path

from dayjob.journal.versions import load
from dayjob.learn import recipes
from dayjob.policies.protocol import Ranker
from dayjob.tables import NIGHT_RECIPES

RECIPES = tuple(recipes.RECIPES)
# By name: their settings need torch, which a server of rankers does without.
LANGUAGE_RECIPES = NIGHT_RECIPES


def load_ranker(root: Path, tenant: str, policy: str, version: str, digest: str) -> Ranker:
    """A verified version, ready to serve. Raises Damaged."""
    from dayjob.policies.ranker import NumpyRanker

    weights, manifest = load(root, tenant, policy, version, digest=digest)
    return NumpyRanker(weights, manifest.network)
