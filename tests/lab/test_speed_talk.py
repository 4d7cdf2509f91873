"""What talking costs beside a night: counted from people's waits, and measured beside a real one."""

import math

import pytest

from dayjob.lab.speed_talk import Heard, beside_a_night, night_rows, quantile
from tests.lab.test_clerk_office import model

__all__ = ["model"]


def test_waits_beside_a_night_stand_beside_those_alone():
    alone, beside = Heard(waits=[0.1, 0.2, 0.4]), Heard(waits=[0.1, 0.3, 0.3, 0.8], errors=["it was full"])
    errors, *rows = night_rows(alone, beside, told="a night of 9 s")
    assert (errors.values, errors.reached, errors.note) == ((1.0,), False, "it was full")
    assert [(one.measure.partition("people talking")[2], one.values) for one in rows] == [
        (", alone: p50 of an answer", (200.0,)), (", a night beside them: p50 of an answer", (300.0,)),
        (", alone: p99 of an answer", (400.0,)), (", a night beside them: p99 of an answer", (800.0,)),
    ]  # fmt: skip
    assert [one.note for one in rows] == ["", "1.5 times alone", "", "2.0 times alone"]
    calm, *_ = night_rows(alone, Heard(waits=[0.1]), told="a night of 9 s")
    assert (calm.reached, calm.note) == (True, "a night of 9 s")
    assert [quantile([1.0, 2.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 2.0, 2.0, 2.0]
    assert math.isnan(quantile([], 0.5))


@pytest.mark.slow
def test_people_talk_on_beside_a_real_night(model, tmp_path):
    errors, *rows = beside_a_night(tmp_path / "data", base=model, listen_s=1.0)
    assert errors.values == (0.0,)
    assert "(succeeded)" in errors.note
    assert all(one.values[0] > 0 for one in rows)
