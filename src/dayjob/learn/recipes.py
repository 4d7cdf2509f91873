"""The recipes: how replay becomes weights. A frozen configuration each, chosen by type, looked up by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Debiased:
    """Ours: a mixture click model and a strongly regularised correction of the caller's score, estimated jointly.

    Ridge weights are per standardised feature, in units of one click's log-likelihood.
    """

    name: str = "debiased"
    rank: int = 128  # principal directions of the contexts in which the similarity may change
    bilinear_rank: int = 16  # the same where contexts and candidates are vectors of different lengths
    ridges: tuple[float, ...] = (3000.0, 1000.0, 300.0, 100.0)  # of the many coefficients, strongest first
    shared_ridge: float = 1.0  # of the few whitened and pair terms
    examined_ridge: float = 30.0  # of the position effects on those who choose
    user_ridge: float = 0.5  # of a user's own departure from the share that is pulled, in logits
    folds: int = 3
    steps: int = 40  # L-BFGS iterations of each fit
    proof: float = 1.64  # standard errors by which held-out likelihood must beat the caller's order
    value_proof: float = 0.0  # the same for the held-out value of the first choice
    least_nats: float = 5.0  # held-out gain of all decisions together: a sure but tiny one is no reason to change
    least_chosen: float = 50.0  # clicks that were choices, by the estimate
    least_clicks: int = 200  # fewer teach nothing: the caller's order stays
    user_share: float = 0.01  # a user weighs at most this share of the decisions, or least_user of them
    least_user: int = 20
    sharpness: tuple[float, ...] = (1.0, 1.4, 2.0)  # of the belief from which expected losses are taken
    most_decisions: int = 50_000  # newest that are learned from: beyond, a night grows and the choice does not


@dataclass(frozen=True, slots=True, kw_only=True)
class Naive:
    """Cross-entropy on clicks, every click believed; the network on top of the caller's score."""

    name: str = "naive"
    batch: int = 64  # decisions
    passes: int = 1
    rate: float = 1e-3  # Adam's
    residual: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce:
    """Geospot's first learner as it was published, from scratch."""

    name: str = "geospot-reinforce"
    batch: int = 64
    passes: int = 1
    rate: float = 1e-3
    kl_weight: float = 0.01
    baseline_decay: float = 0.95  # a batch
    average_decay: float = 0.99  # Polyak's, a batch
    residual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dpo:
    """Geospot's second learner as it was published, from scratch."""

    name: str = "geospot-dpo"
    batch: int = 64
    passes: int = 1
    rate: float = 1e-3
    beta: float = 0.1
    residual: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A network by the mixture likelihood: a click is a position's pull, or the network's choice."""

    name: str = "mixture"
    batch: int = 64
    passes: int = 1
    rate: float = 1e-3
    attention: int = 0  # width of the look at the whole list; 0: each candidate alone, Geospot's published head


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipAbove:
    """A network by skip-above pairs: the clicked candidate against those shown above it."""

    name: str = "skip-above"
    batch: int = 64
    passes: int = 1
    rate: float = 1e-3
    attention: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DoublyRobust:
    """A network by cross-entropy on doubly robust relevance, the belief of few terms as its model."""

    name: str = "doubly-robust"
    batch: int = 64
    passes: int = 1
    rate: float = 1e-3
    floor: float = 0.05  # least alpha that anything is divided by
    attention: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlRank:
    """A network by PL-Rank on affine-corrected clicks, places discounted as in DCG."""

    name: str = "pl-rank"
    batch: int = 64
    passes: int = 1
    rate: float = 1e-3
    samples: int = 8  # rankings drawn a decision
    floor: float = 0.05
    attention: int = 0


ClickModelRecipe = Mixture | SkipAbove | DoublyRobust | PlRank
Recipe = Debiased | Naive | Reinforce | Dpo | ClickModelRecipe

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Debiased(), Naive(), Reinforce(), Dpo(),
            Mixture(), Mixture(name="mixture-set", attention=32), SkipAbove(), DoublyRobust(), PlRank(),
        )
    }
)  # fmt: skip
