"""What is said of a request that misses the shape of this API altogether: what to send, in our words."""

import orjson
import pytest

from dayjob.serve import wire
from tests.serve.test_wire import refused


def test_a_policy_without_its_kind_is_told_to_name_it():
    refusal = refused(wire.parse_policy_spec, b'{"context_dim": 2, "candidate_dim": 2}')
    assert (refusal.param, refusal.code) == ("kind", "missing")
    assert '"kind": "ranker"' in str(refusal)
    assert "discriminator" not in str(refusal)


@pytest.mark.parametrize(
    ("changes", "param", "remedy"),
    [
        ({"context": [1, 2]}, "context", 'send {"features": [..]}'),
        ({"candidates": ["a"]}, "candidates.0", '{"id": "..", "features": [..], "score": 0.7}'),
    ],
)
def test_what_is_no_object_is_shown_the_object_to_send(changes, param, remedy):
    sent = {"policy": "geo", "context": {"features": [1]}} | changes
    refusal = refused(wire.parse, wire.RankRequest, orjson.dumps(sent))
    assert refusal.param == param
    assert remedy in str(refusal)
