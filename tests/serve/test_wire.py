"""The requests of the wire contract: what fits is taken as it was meant, everything else says what to do."""

import base64
import contextlib
import json
import math
import uuid

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayjob.endings import Invalid, OutcomeKind
from dayjob.serve import answers, wire
from dayjob.serve.fields import Unfit

DECISION = "0190a1b2-0000-7000-8000-000000000001"
RANKER = {"kind": "ranker", "context_dim": 3, "candidate_dim": 2}


def b64(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


def rank(**changes: object) -> wire.RankRequest:
    return wire.parse(
        wire.RankRequest, json.dumps({"policy": "geo", "context": {"features": [1, 2]}} | changes).encode()
    )


def refused(call, *arguments: object, **named: object) -> Invalid:
    with pytest.raises(Invalid) as caught:
        call(*arguments, **named)
    return caught.value


def test_the_contracts_own_example_is_taken():
    body = {
        "policy": "geo", "id": DECISION, "user": "u1", "session": "s1", "k": 10, "explore": True,
        "context": {"features": [0.5, -1]},
        "candidates": [{"id": "a", "features": [1.5, 2], "pair": [0.31, 0.12], "score": -2.1}],
    }  # fmt: skip
    request = wire.parse(wire.RankRequest, orjson.dumps(body))
    assert request.id == uuid.UUID(DECISION)
    assert (request.policy, request.user, request.session, request.k, request.explore) == ("geo", "u1", "s1", 10, True)
    assert request.candidates is not None
    candidate = request.candidates[0]
    assert (candidate.id, candidate.score) == ("a", -2.1)
    np.testing.assert_array_equal(request.context.vector_D, np.array([0.5, -1], dtype=np.float32))
    np.testing.assert_array_equal(candidate.vector_D, np.array([1.5, 2], dtype=np.float32))
    np.testing.assert_array_equal(candidate.pair, np.array([0.31, 0.12], dtype=np.float32))


def test_what_is_left_out_has_the_contracts_defaults():
    request = rank()
    assert (request.id, request.user, request.session, request.k, request.candidates) == (None, None, None, None, None)
    assert request.explore is True
    [candidate] = rank(candidates=[{"id": "a"}]).candidates
    assert (candidate.vector_D, candidate.pair, candidate.score, candidate.meta) == (None, None, 0.0, None)
    spec = wire.parse_policy_spec(orjson.dumps(RANKER))
    assert spec.model_dump() == RANKER | {
        "pair_dim": 0, "hidden": [256, 256], "recipe": "debiased", "similarity_scale": 1.0, "metric": "click",
        "reward_range": [0, 1], "outcome_window_s": 60, "explore": {"changed_first": 0.05}, "alpha": 0.05,
        "minimum_effect": 0.01, "learn_every": 2000,
    }  # fmt: skip
    assert wire.parse_policy_spec(b'{"kind":"language","base":"q"}').model_dump() == {
        "kind": "language", "base": "q", "recipe": "consolidate", "alpha": 0.05, "minimum_effect": 0.01,
        "learn_every": 0,
    }  # fmt: skip


@pytest.mark.parametrize("field", ['"alpha":0', '"alpha":1', '"minimum_effect":-1', '"learn_every":-1', '"k":1'])
def test_what_a_language_policy_cannot_be_judged_by_is_refused(field):
    with pytest.raises(Invalid, match=field.partition(":")[0].strip('"')):
        wire.parse_policy_spec(b'{"kind":"language","base":"q",%s}' % field.encode())


finite32 = st.floats(-(2.0**49), 2.0**49, width=32)


@given(st.lists(finite32, max_size=40))
def test_numbers_and_base64_mean_the_same_float32(numbers):
    listed = rank(context={"features": numbers}).context.vector_D
    packed = rank(context={"features_b64": b64(*numbers)}).context.vector_D
    assert listed.tobytes() == packed.tobytes() == np.array(numbers, dtype="<f4").tobytes()
    assert listed.dtype == packed.dtype == np.float32
    assert not listed.flags.writeable
    assert not packed.flags.writeable


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2e15, -2e15])
@pytest.mark.parametrize("at", [0, 1, 511])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(bad, at):
    numbers = [0.5] * 512
    numbers[at] = bad
    for context in ({"features": numbers}, {"features_b64": b64(*numbers)}):
        refusal = refused(rank, context=context)
        assert f"number {at} (from 0)" in str(refusal)
        assert "send finite numbers" in str(refusal)
        assert refusal.param == "context." + next(iter(context))


@pytest.mark.parametrize("number", ["1e39", "-1e39", "1e999", "1" + "0" * 400, "NaN", "Infinity"])
def test_a_json_number_beyond_float32_is_refused(number):
    body = f'{{"policy":"geo","context":{{"features":[1,{number}]}}}}'
    assert "send finite numbers" in str(refused(wire.parse, wire.RankRequest, body.encode()))


@pytest.mark.parametrize("features", [[True], ["1"], [None], [[1]], [{}], "1", 1, {}, [1, "1"]])
def test_only_numbers_are_numbers(features):
    assert refused(rank, context={"features": features}).param.startswith("context.features")


@pytest.mark.parametrize("text", ["AAAA", "AAAAA", "AAAA AAA", "AAAAAA==\n", "é", "AAAAAB==", "\x00"])
def test_what_is_not_base64_of_float32_is_refused(text):
    assert "base64" in str(refused(rank, context={"features_b64": text}))


def test_a_vector_comes_once():
    both = {"features": [1], "features_b64": b64(1)}
    assert "exactly one" in str(refused(rank, context=both))
    assert "exactly one" in str(refused(rank, context={}))
    assert "not both" in str(refused(rank, candidates=[{"id": "a"} | both]))


def test_loss_is_square_and_as_large_as_the_candidates():
    two = [{"id": "a"}, {"id": "b"}]
    np.testing.assert_array_equal(rank(candidates=two, loss=[[0, 2], [3.5, 0]]).loss, np.array([[0, 2], [3.5, 0]]))
    assert "square" in str(refused(rank, candidates=two, loss=[[0, 1], [1]]))
    assert "square" in str(refused(rank, candidates=two, loss=[[0, 1]]))
    assert "1 rows for 2 candidates" in str(refused(rank, candidates=two, loss=[[0]]))
    assert "loss needs candidates" in str(refused(rank, loss=[[0]]))
    assert "finite" in str(refused(rank, candidates=two, loss=[[0, 1], [math.nan, 0]]))


@pytest.mark.parametrize(
    ("meta", "remedy"),
    [
        ({"lat": math.nan}, "2^53"),
        ({"lat": [1, {"x": math.inf}]}, "2^53"),
        ({"n": 2**60}, "2^53"),
        ({"t": "a" * 5_000}, "4096"),
        ({"t": "a\x00"}, "NUL"),
        ({"t\x00": 1}, "NUL"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}}, "8 levels"),
    ],
)
def test_meta_is_small_and_plain(meta, remedy):
    assert remedy in str(refused(rank, candidates=[{"id": "a", "meta": meta}]))


def test_meta_is_kept_as_sent():
    meta = {"lat": 48.2, "lon": 16, "tags": ["x", None, True], "n": {"m": -0.5}}
    [candidate] = rank(candidates=[{"id": "a", "meta": meta}]).candidates
    assert candidate.meta == meta


@pytest.mark.parametrize("name", ["", "../x", ".x", "-x", "a/b", "a b", "ä", "a\n", "a" * 65, "a\x00"])
def test_policy_names_are_plain(name):
    assert refused(rank, policy=name).param == "policy"


@pytest.mark.parametrize("name", ["a", "0", "Geo.v2_final-1", "a" * 64])
def test_plain_policy_names_are_taken(name):
    assert rank(policy=name).policy == name


@pytest.mark.parametrize("field", ["user", "session"])
@pytest.mark.parametrize("text", ["", "a\n", "\x00", "a\x1f", "\x7f", "\x85", "a" * 257, 7, ["u"]])
def test_names_of_people_hold_no_control_characters(field, text):
    assert refused(rank, **{field: text}).param == field


@pytest.mark.parametrize("text", ["a", "ü" * 256, "日本語", "o'neil; drop table", "👩‍🔬", "../../etc/passwd"])
def test_every_other_name_is_taken(text):
    assert rank(user=text, candidates=[{"id": text}]).user == text


@pytest.mark.parametrize(
    ("changes", "param", "remedy"),
    [
        ({"candidates": [{"id": "a"}, {"id": "b", "features": [1], "scores": 1}]}, "candidates.1.scores", "score?"),
        ({"contxt": 1}, "contxt", "did you mean context?"),
        ({"zzzz": 1}, "zzzz", "leave it out"),
        ({"context": {"feature": [1]}}, "context.feature", "did you mean features?"),
        ({"id": "7"}, "id", "send a UUID"),
        ({"k": 0}, "k", "greater than or equal to 1"),
        ({"k": 1.5}, "k", "valid integer"),
        ({"k": 2**70}, "k", "65536"),
        ({"explore": 1}, "explore", "valid boolean"),
        ({"candidates": []}, "candidates", "at least 1"),
        ({"candidates": [{"id": "a", "score": 1e300}]}, "candidates.0.score", "less than or equal"),
        ({"candidates": [{"id": "a"}, {"id": "a"}]}, None, "send each once"),
    ],
)
def test_a_refusal_names_the_field_and_the_remedy(changes, param, remedy):
    refusal = refused(rank, **changes)
    assert refusal.param == param
    assert remedy in str(refusal)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[]", b"[[", b"7", b'"x"', b"\xff", b'{"policy":"\\ud800"}', b"{}{}"]
)
def test_what_is_not_a_request_is_refused_by_every_way_in(body):
    refused(wire.parse, wire.RankRequest, body)
    refused(wire.parse_policy_spec, body)
    refused(wire.parse_feedback, body)


def test_a_hostile_body_is_refused_quickly_and_briefly():
    many = ("{" + ",".join(f'"{number:x}":1' for number in range(50_000)) + "}").encode()
    assert "50002 faults" in str(refused(wire.parse, wire.RankRequest, many))
    deep = b'{"policy":' + b"[" * 100_000
    assert "not JSON" in str(refused(wire.parse, wire.RankRequest, deep))
    assert "not JSON" in str(refused(wire.parse_feedback, deep))
    long_name = orjson.dumps({"x" * 100_000: 1, "policy": "a", "context": {"features": [1]}})
    assert len(str(refused(wire.parse, wire.RankRequest, long_name))) < 1_000


@pytest.mark.parametrize(
    ("changes", "param", "remedy"),
    [
        ({"kind": "tabular"}, "kind", 'send "kind": "ranker"'),
        ({"context_dim": 0}, "context_dim", "greater than or equal to 1"),
        ({"pair_dims": 2}, "pair_dims", "did you mean pair_dim?"),
        ({"explore": {"change_first": 1}}, "explore.change_first", "did you mean changed_first?"),
        ({"explore": {"changed_first": 1.01}}, "explore.changed_first", "less than or equal to 1"),
        ({"reward_range": [1, 0]}, None, "must rise"),
        ({"reward_range": [0]}, "reward_range", "at least 2"),
        ({"hidden": [256, 0]}, "hidden.1", "greater than or equal to 1"),
        ({"alpha": 0}, "alpha", "greater than 0"),
        ({"metric": "ctr"}, "metric", "'km'"),
        ({"base": "q"}, "base", "leave it out"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes, param, remedy):
    refusal = refused(wire.parse_policy_spec, orjson.dumps(RANKER | changes))
    assert refusal.param == param
    assert remedy in str(refusal)


def feedback(**changes: object) -> wire.FeedbackItem:
    item = wire.parse_feedback(orjson.dumps({"decision": DECISION, "kind": "click", "item": "a"} | changes))
    assert isinstance(item, wire.FeedbackItem)
    return item


FITTING = [
    {},
    {"item": None, "position": 1},
    {"kind": "accept", "item": None},
    {"kind": "reject"},
    {"kind": "none", "item": None},
    {"kind": "thumb", "value": 1},
    {"kind": "thumb", "value": -1.0},
    {"kind": "reward", "value": 0.25},
    {"kind": "truth"},
    {"kind": "truth", "item": None, "value": {"relevance": {"a": 1, "b": 0.5}}},
    {"kind": "correction", "item": None, "text": "it is Graz\nnot Linz"},
    {"kind": "demonstration", "item": None, "text": "Graz"},
    {"kind": "demonstration"},
    {"kind": "retract", "decision": None, "item": None, "value": DECISION},
    {"decision": None, "session": "s1"},
    {"at": "2026-11-20T09:00:00+14:00", "source": "verifier", "token": "t", "id": DECISION},
]


@pytest.mark.parametrize("changes", FITTING)
def test_every_kind_of_feedback_is_taken(changes):
    item = feedback(**changes)
    assert item.kind == changes.get("kind", "click")
    assert item.source == changes.get("source", "human")


def test_every_kind_has_an_example():
    assert {changes.get("kind", "click") for changes in FITTING} == set(OutcomeKind)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"item": None}, "the item or its position"),
        ({"value": 1}, "value of a click is null"),
        ({"position": 0}, "greater than or equal to 1"),
        ({"decision": None}, "send the decision"),
        ({"session": "s1"}, "not both"),
        ({"kind": "clik"}, "send one of click, accept"),
        ({"kind": "none"}, "leave item and position out"),
        ({"kind": "thumb"}, "1 or -1"),
        ({"kind": "thumb", "value": 0}, "1 or -1"),
        ({"kind": "thumb", "value": True}, "1 or -1"),
        ({"kind": "reward"}, "a finite number"),
        ({"kind": "reward", "value": {"relevance": {"a": 1}}}, "a finite number"),
        ({"kind": "truth", "item": None}, "value.relevance"),
        ({"kind": "truth", "value": 1}, "relevance"),
        ({"kind": "truth", "item": None, "value": {"relevance": {}}}, "relevance"),
        ({"kind": "truth", "item": None, "value": {"relevance": {"a": "1"}}}, "relevance"),
        ({"kind": "correction"}, "needs text"),
        ({"kind": "correction", "text": ""}, "text"),
        ({"kind": "correction", "text": "a\x00"}, "NUL"),
        ({"kind": "correction", "text": "a" * 65_537}, "65536"),
        ({"kind": "demonstration", "item": None}, "text or item"),
        ({"kind": "retract"}, "the id of the outcome"),
        ({"kind": "retract", "value": 7}, "the id of the outcome"),
        ({"at": "2026-11-20T09:00:00"}, "time zone"),
        ({"at": "2026-11-20"}, "time zone"),
        ({"at": 1_700_000_000}, "datetime"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "1970"),
        ({"at": "9999-12-31T23:59:59-14:00"}, "1970"),
        ({"user": "u1"}, "not a field"),
    ],
)
def test_feedback_that_does_not_fit_its_kind_is_refused(changes, remedy):
    assert remedy in str(refused(feedback, **changes))


@pytest.mark.parametrize("value", ["NaN", "1e999", "-Infinity"])
def test_a_reward_is_finite(value):
    body = f'{{"decision":"{DECISION}","kind":"reward","value":{value}}}'
    refused(wire.parse_feedback, body.encode())


def test_each_item_of_a_batch_is_judged_alone_and_in_order():
    click = {"decision": DECISION, "kind": "click", "item": "a"}
    sent = [click, 7, click | {"kind": "clik"}, None, click | {"item": "b"}, {"items": []}]
    got = wire.parse_feedback(orjson.dumps({"items": sent}))
    assert isinstance(got, list)
    assert [isinstance(one, Unfit) for one in got] == [False, True, True, True, False, True]
    assert [one.item for one in got if isinstance(one, wire.FeedbackItem)] == ["a", "b"]


@pytest.mark.parametrize("sent", [{"items": []}, {"items": {}}, {"items": [1], "x": 1}, {"items": [1] * 1_001}])
def test_a_batch_is_a_list_of_bounded_length(sent):
    assert refused(wire.parse_feedback, orjson.dumps(sent)).param == "items"


def test_a_catalog_is_read_line_by_line():
    lines = [{"id": "a", "features": [1, 2]}, {"id": "b", "features_b64": b64(3, 4), "meta": {"lat": 1, "lon": 2}}]
    body = b"\n".join(orjson.dumps(line) for line in lines)
    for text in (body, body + b"\n", body.replace(b"\n", b"\r\n\n") + b"\r\n"):
        items = wire.parse_catalog(text)
        assert [item.id for item in items] == ["a", "b"]
        assert [item.vector_D.tolist() for item in items] == [[1, 2], [3, 4]]
        assert items[1].meta == {"lat": 1, "lon": 2}


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (b'{"id":"a","features":[1]}', "sent on an earlier line"),
        (b'{"id":"b"}', "exactly one of features"),
        (b'{"id":"b","features":[1],"score":1}', "not a field"),
        (b"{", "not JSON"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line, remedy):
    refusal = refused(wire.parse_catalog, b'{"id":"a","features":[1]}\n\n' + line + b'\n{"id":"c","features":[1]}')
    assert str(refusal).startswith("line 3: ")
    assert remedy in str(refusal)


def test_small_requests_have_their_defaults():
    assert wire.parse(wire.LearnRequest, b"").recipe is None
    assert wire.parse(wire.RollbackRequest, b"").to is None
    assert wire.parse(wire.FreezeRequest, b"").serve == "champion"
    assert wire.parse(wire.UserPatch, b'{"learn":false}').learn is False
    assert refused(wire.parse, wire.UserPatch, b"").param == "learn"
    assert refused(wire.parse, wire.PromoteRequest, b'{"version":"v1-00000000"}').param == "reason"
    assert "'baseline'" in str(refused(wire.parse, wire.FreezeRequest, b'{"serve":"none"}'))


def test_requests_and_answers_publish_their_schemas():
    schema = wire.RankRequest.model_json_schema()
    assert set(schema["required"]) == {"policy", "context"}
    packed = schema["$defs"]["Context"]["properties"]["features_b64"]["anyOf"][0]
    assert packed == {
        "type": "string", "format": "byte", "contentEncoding": "base64", "description": "little-endian float32"
    }  # fmt: skip
    assert schema["$defs"]["Context"]["properties"]["features"]["anyOf"][0]["items"] == {"type": "number"}
    assert set(answers.RankResponse.model_json_schema()["required"]) == {
        "id", "policy", "version", "role", "role_propensity", "log_propensity", "ranking"
    }  # fmt: skip
    assert wire.FeedbackBatch.model_json_schema()["properties"]["items"]["maxItems"] == 1_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(sorted({*wire.RankRequest.model_fields, *wire.FeedbackItem.model_fields, "kind"})), json_values
    )
)
def test_no_json_breaks_a_way_in(sent):
    body = json.dumps(sent).encode()
    for call in (
        lambda: wire.parse(wire.RankRequest, body),
        lambda: wire.parse_feedback(body),
        lambda: wire.parse_policy_spec(body),
        lambda: wire.parse_catalog(body),
    ):
        with contextlib.suppress(Invalid):
            call()
