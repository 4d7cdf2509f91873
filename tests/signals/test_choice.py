"""The mixture "pulled or chosen": gradients, recovery, intervals, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from dayjob.lab.crowds import STEEP, Crowd, crowd_log
from dayjob.signals import choice
from dayjob.signals.choice import fit_choice
from dayjob.signals.clicklog import ClickLog
from dayjob.signals.orders import choice_columns


def drawn(rng: np.random.Generator, rows: int, pull: np.ndarray, weight: np.ndarray) -> tuple[ClickLog, np.ndarray]:
    """A log drawn from the model itself: pulls (last: no click), softmax of two columns."""
    width = len(pull) - 1
    x = rng.normal(size=(rows, width, 2))
    logit = x @ weight
    p = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    p = np.concatenate([p, np.zeros((rows, 1))], axis=1) * (1 - pull.sum()) + pull
    label = (rng.random((rows, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
    items = np.arange(rows * width).reshape(rows, width)
    return ClickLog.of(items, click_B=np.where(label == width, -1, label)), x


def test_what_it_was_drawn_from_comes_back_inside_its_intervals() -> None:
    pull = np.array([0.4, 0.1, 0.05, 0.0, 0.0, 0.1])  # a tenth neither look nor click
    inside, looks = [], []
    for seed in range(25):
        log, x = drawn(np.random.default_rng(seed), 3000, pull, np.array([1.5, -1.0]))
        model = fit_choice(log, x)
        low, high = model.interval_K()
        inside.append((low <= pull[:-1]) & (pull[:-1] <= high))
        looks.append(model.look)
        assert model.weight_F == pytest.approx([1.5, -1.0], abs=0.45)
    assert np.mean(looks) == pytest.approx(0.35, abs=0.02)
    assert np.mean(inside) >= 0.85


def test_newton_step_is_the_gradient_of_the_weighted_likelihood() -> None:
    rng = np.random.default_rng(0)
    x, shown = rng.normal(size=(50, 4, 2)), np.ones((50, 4), bool)
    label, looked = rng.integers(0, 5, size=50), rng.random(50)
    weight, ridge = np.array([0.3, -0.2, 0.4]), 1.0

    def value(w: np.ndarray) -> float:
        rho = choice._choice(x, shown, w)[np.arange(50), label]
        return float(looked @ np.log(rho) - ridge * (w @ w) / 2)

    def slope(w: np.ndarray) -> np.ndarray:
        step = 1e-5 * np.eye(3)
        return np.array([(value(w + s) - value(w - s)) / 2e-5 for s in step])

    moved = choice._step(choice._design(x), choice._choice(x, shown, weight), label, looked, weight, ridge)
    hessian = np.stack([(slope(weight + s) - slope(weight - s)) / 2e-4 for s in 1e-4 * np.eye(3)])
    assert moved == pytest.approx(weight - np.linalg.solve(hessian, slope(weight)), rel=1e-4)


def test_chosen_is_a_distribution_over_what_was_shown() -> None:
    log, x = drawn(np.random.default_rng(1), 2000, np.array([0.5, 0.0, 0.0, 0.1]), np.array([1.0, 0.0]))
    model = fit_choice(log, x)
    shown = np.ones((1, 3), bool)
    shown[0, 2] = False
    rho = model.chosen(x[:1], shown)
    assert rho.sum() == pytest.approx(1.0)
    assert rho[0, 2] == 0.0


def test_looked_is_bayes_rule() -> None:
    log, x = drawn(np.random.default_rng(2), 3000, np.array([0.6, 0.0, 0.0, 0.0]), np.array([1.0, 1.0]))
    model = fit_choice(log, x)
    looked = model.looked(x, log.shown_BK, click_B=log.click_B)
    assert looked.mean() == pytest.approx(model.look, abs=0.01)
    assert looked[log.click_B > 0].mean() > 0.95  # nothing pulls there
    first = log.click_B == 0
    rho = model.chosen(x, log.shown_BK)[first, 0]
    assert looked[first] == pytest.approx(model.look * rho / (model.look * rho + model.pull_K[0]))


@pytest.mark.parametrize("silent", [0.0, 0.2])
def test_the_published_users_come_back_where_choices_are_no_softmax(silent: float) -> None:
    """Lookers take the highest utility, of which the columns know part: the pull of position 1 within three points."""
    crowd = Crowd(quality=0.8, silent=silent)
    log = crowd_log(np.random.default_rng(3), 8000, crowd=crowd)
    model = fit_choice(log, choice_columns(log))
    assert model.pull_K[0] == pytest.approx(0.65 * (1 - silent), abs=0.03)
    assert model.pull_K[1:].max() < 0.02
    steep = crowd_log(np.random.default_rng(3), 8000, crowd=replace(crowd, pattern=STEEP))
    found = fit_choice(steep, choice_columns(steep)).pull_K[:3]
    assert found == pytest.approx(np.array(STEEP[:3]) * 0.65 * (1 - silent), abs=0.04)


def test_users_clicks_are_not_counted_as_independent() -> None:
    log, x = drawn(np.random.default_rng(4), 2000, np.array([0.5, 0.0, 0.0, 0.0]), np.array([1.0, 1.0]))
    twice = ClickLog.of(
        np.concatenate([log.item_BK, log.item_BK]), click_B=np.tile(log.click_B, 2), user_B=np.tile(np.arange(2000), 2)
    )
    alone = fit_choice(log, x).error_K
    assert fit_choice(twice, np.concatenate([x, x])).error_K == pytest.approx(alone, rel=0.05)


def test_nothing_to_tell_pull_from_choice_is_said() -> None:
    log = ClickLog.of([[0, 1], [2, 3]], click_B=[0, 1])
    with pytest.raises(ValueError, match="Send scores or features"):
        fit_choice(log, np.zeros((2, 2, 1)))
    with pytest.raises(ValueError, match="Nothing was clicked"):
        fit_choice(ClickLog.of([[0, 1]], click_B=[-1]), np.ones((1, 2, 1)))
