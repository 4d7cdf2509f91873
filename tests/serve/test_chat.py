"""The chat of the wire contract, with the official OpenAI client against a real server over a tiny random model."""

import itertools
import threading
import uuid
from collections.abc import Iterator
from functools import partial

import httpx2
import numpy as np
import openai
import pytest

from dayjob.lab.server import Server
from dayjob.serve.chat_wire import ChatAnswer, ModelList, ModelView
from tests.policies.language.worlds import byte_tokenizer
from tests.serve.asking import error_of
from tests.serve.chatting import HELLO, LANGUAGE, chatting, journaled, openai_client, plain_logprobs, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with chatting(tmp_path_factory.mktemp("chat")) as one:
        with httpx2.Client(base_url=one.url) as http:
            assert http.put("/v1/policies/clerk", json=LANGUAGE).status_code == 201
        yield one


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai_client(server) as one:
        yield one


def ask(client: openai.OpenAI, **changes):
    return client.chat.completions.create(**{"model": "clerk", "messages": HELLO, "max_tokens": 6} | changes)


def post(http: httpx2.Client, headers=None, **changes):
    body = {"model": "clerk", "messages": HELLO, "max_tokens": 6} | changes
    return http.post("/v1/chat/completions", json=body, headers=headers)


def heard(stream) -> tuple[dict[int, str], dict[int, str], list]:
    """The text and the end of each choice of a stream, and all its chunks."""
    text, ends, chunks = {}, {}, []
    for chunk in stream:
        chunks.append(chunk)
        for choice in chunk.choices:
            text[choice.index] = text.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    return text, ends, chunks


# ---- what is answered, and what is journaled -------------------------------------------------------------------------


def test_every_token_of_an_answer_is_in_the_journal_with_all_that_explains_it(client, http):
    told = ask(client, n=2, temperature=0.7, top_p=0.9, logprobs=True, top_logprobs=2, seed=-3, user="ann",
               stop=["ß", "ö"], metadata={"session": "s1", "other": "x"})  # fmt: skip
    assert (told.object, told.model, told.system_fingerprint) == ("chat.completion", "clerk@v0-baseline", "v0-baseline")
    row = journaled(http, "clerk", told.id)
    assert row is not None
    assert (row["user"], row["session"], row["version"], row["role"]) == ("ann", "s1", "v0-baseline", "champion")
    assert row["messages"] == HELLO
    assert row["sampling"] == {"temperature": 0.7, "top_p": 0.9, "max_tokens": 6, "stop": ["ß", "ö"], "seed": -3,
                               "top_logprobs": 2}  # fmt: skip
    tokenizer = byte_tokenizer()
    assert row["prompt_ids"] == tokenizer.apply_chat_template(HELLO, add_generation_prompt=True, return_dict=False)
    for choice, kept in zip(told.choices, row["choices"], strict=True):
        ids = kept["token_ids"]
        assert 1 <= len(ids) <= 6
        assert choice.message.content == kept["text"] == tokenizer.decode(ids, skip_special_tokens=True)
        assert choice.finish_reason == kept["ending"] == ("length" if len(ids) == 6 else "stop")
        assert kept["versions"] == [["v0-baseline", len(ids)]]
        np.testing.assert_allclose(kept["model_logprobs"], plain_logprobs(row["prompt_ids"], ids), atol=1e-3)
        assert len(kept["sample_logprobs"]) == len(ids)
        assert max(kept["sample_logprobs"]) <= 0
        assert not np.allclose(kept["sample_logprobs"], kept["model_logprobs"], atol=1e-3), "drawn at .7 within .9"
        assert [token.logprob for token in choice.logprobs.content] == kept["model_logprobs"]
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    assert row["choices"][0]["seed"] != row["choices"][1]["seed"]
    assert told.usage.prompt_tokens == len(row["prompt_ids"])
    assert told.usage.completion_tokens == sum(len(kept["token_ids"]) for kept in row["choices"])


def test_what_is_answered_fits_what_is_published(http):
    for changes in ({}, {"logprobs": True, "top_logprobs": 3, "n": 2}):
        told = post(http, **changes)
        assert ChatAnswer.model_validate_json(told.content).model_dump(mode="json") == told.json()
    told = http.get("/v1/models/clerk")
    ModelView.model_validate_json(told.content)
    told = http.get("/v1/models")
    assert ModelList.model_validate_json(told.content).model_dump(mode="json") == told.json()


def test_a_seed_draws_the_same_tokens_and_another_draws_others(client):
    first, again, other = (ask(client, seed=seed, max_tokens=16) for seed in (7, 7, 8))
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.id != again.id
    assert first.choices[0].message.content != other.choices[0].message.content
    apart = {ask(client, max_tokens=16).choices[0].message.content for _ in range(4)}  # one in 250 ends at once
    assert len(apart) > 1, "without one, each its own"


def test_greedy_takes_the_most_probable_token_every_time(client):
    told = ask(client, temperature=0, logprobs=True, top_logprobs=1)
    for token in told.choices[0].logprobs.content:
        assert token.logprob == token.top_logprobs[0].logprob


def test_a_stream_says_what_the_whole_answer_says(client):
    whole = ask(client, seed=5, n=2, max_tokens=12, logprobs=True)
    text, ends, chunks = heard(
        ask(client, seed=5, n=2, max_tokens=12, logprobs=True, stream=True, stream_options={"include_usage": True})
    )
    assert text == {choice.index: choice.message.content for choice in whole.choices}
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    for choice in whole.choices:
        told = [
            token.logprob for chunk in chunks for one in chunk.choices if one.index == choice.index and one.logprobs
            for token in one.logprobs.content
        ]  # fmt: skip
        assert told == [token.logprob for token in choice.logprobs.content]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].choices == []


def test_a_stream_is_durable_before_its_last_chunk(client, http):
    seen = []
    for chunk in ask(client, stream=True, max_tokens=20):
        ended = any(choice.finish_reason for choice in chunk.choices)
        seen.append((ended, journaled(http, "clerk", chunk.id) is not None))
    assert [ended for ended, _ in seen].index(True) == len(seen) - 1 > 0
    assert seen[-1] == (True, True)  # earlier ones may find it, too: the answer can be written before they are read


def test_a_stop_string_ends_the_answer_and_is_not_in_it(client):
    text = ask(client, temperature=0, max_tokens=24).choices[0].message.content
    stop = text[10]
    told = ask(client, temperature=0, max_tokens=24, stop=stop).choices[0]
    assert told.finish_reason == "stop"
    assert told.message.content == text[: text.index(stop)]


def test_tools_and_parts_of_text_are_handed_to_the_template(client, http):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    calls = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
    ]
    row = journaled(http, "clerk", ask(client, messages=messages, tools=tools, max_completion_tokens=6).id)
    assert row is not None
    assert row["tools"] == tools
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "tool"]
    assert row["messages"][1]["content"] == "ab"
    assert row["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"at": 1}
    assert journaled(http, "clerk", ask(client, tools=tools, tool_choice="none").id)["tools"] == []


def test_an_answer_may_be_sent_back_as_it_came(client):
    said = ask(client).choices[0].message
    assert ask(client, messages=[*HELLO, said, {"role": "user", "content": "and?"}]).choices[0].message


# ---- which version ---------------------------------------------------------------------------------------------------


def test_models_names_policies_and_their_versions(client):
    named = {model.id: model for model in client.models.list()}
    assert {"clerk", "clerk@v0-baseline"} <= set(named)
    assert named["clerk"].owned_by == "dayjob"
    for model in ("clerk", "clerk@v0-baseline"):
        assert client.models.retrieve(model) == named[model]
    for model in ("clerk@champion", "nobody", "nobody@v0-baseline", "clerk@", "clerk@v9-00000000"):  # none of the list
        with pytest.raises(openai.NotFoundError) as refused:
            client.models.retrieve(model)
        assert refused.value.code == "model_not_found"
    for model in ("clerk@champion", "clerk@baseline", "clerk@v0-baseline"):
        assert ask(client, model=model).model == "clerk@v0-baseline"


@pytest.mark.parametrize("model", ["nobody", "clerk@v9-00000000", "clerk@", "@champion", "clerk@../x", "Clerk"])
def test_an_unknown_model_is_404(client, model):
    if model == "clerk@":
        assert ask(client, model=model).id
        return
    with pytest.raises(openai.NotFoundError) as refused:
        ask(client, model=model)
    assert refused.value.code == "model_not_found"


def test_a_ranker_is_no_model_and_a_language_policy_no_ranker(client, http):
    ranker = {"kind": "ranker", "context_dim": 1, "candidate_dim": 1}
    assert http.put("/v1/policies/geo", json=ranker).status_code == 201
    with pytest.raises(openai.NotFoundError, match="ranker"):
        ask(client, model="geo")
    asked = {"policy": "clerk", "context": {"features": [1]}, "candidates": [{"id": "a", "features": [1]}]}
    assert "language" in error_of(http.post("/v1/rank", json=asked), 422)["message"]
    assert http.put("/v1/policies/clerk", json=ranker).status_code == 409


def test_a_named_version_is_pinned_and_told_apart_in_the_journal(client, http):
    row = journaled(http, "clerk", ask(client, model="clerk@baseline").id)
    assert row is not None
    assert row["role"] == "pinned"


# ---- one id, one effect ----------------------------------------------------------------------------------------------


def test_an_equal_retry_gets_the_first_answer_whole_or_as_a_stream(client, http):
    chosen = str(uuid.uuid4())
    first = ask(client, extra_body={"id": chosen}, logprobs=True, top_logprobs=1, n=2)
    assert first.id == chosen
    assert ask(client, extra_body={"id": chosen}, logprobs=True, top_logprobs=1, n=2) == first
    again = ask(client, extra_body={"id": chosen}, logprobs=True, top_logprobs=1, n=2, stream=True)
    text, ends, _ = heard(again)
    assert text == {choice.index: choice.message.content for choice in first.choices}
    assert ends == {choice.index: choice.finish_reason for choice in first.choices}
    with pytest.raises(openai.ConflictError, match="another body"):
        ask(client, extra_body={"id": chosen}, n=1)
    assert http.get("/v1/policies/clerk").status_code == 200


def test_an_idempotency_key_does_the_same_for_each_person_apart(client):
    key = {"Idempotency-Key": "order 66"}
    first = ask(client, extra_headers=key, user="ann")
    assert ask(client, extra_headers=key, user="ann") == first
    assert ask(client, extra_headers=key, user="bob").id != first.id
    with pytest.raises(openai.ConflictError):
        ask(client, extra_headers=key, user="ann", max_tokens=5)


def test_a_retry_beside_the_first_waits_for_its_answer(client, http):
    before = http.get("/v1/policies/clerk").json()["counts"]["decisions"]
    body, told = {"id": str(uuid.uuid4())}, []
    threads = [threading.Thread(target=lambda: told.append(ask(client, extra_body=body))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [told[0]] * 6
    assert http.get("/v1/policies/clerk").json()["counts"]["decisions"] == before + 1


# ---- those who go away -----------------------------------------------------------------------------------------------


def test_a_stream_that_nobody_reads_any_more_is_journaled_as_aborted(server, http):
    for seed in range(50):  # so small a model may end, or be through, before the server hears that nobody listens
        body = {"model": "clerk", "messages": HELLO, "max_tokens": 450, "stream": True, "id": str(uuid.uuid4()), "n": 2,
                "seed": seed}  # fmt: skip
        with httpx2.Client(base_url=server.url) as gone, gone.stream("POST", "/v1/chat/completions", json=body) as told:
            heard_of = list(itertools.islice(told.iter_lines(), 9))
        assert body["id"] in heard_of[0]
        row = wait_for(partial(journaled, http, "clerk", body["id"]))
        if cut := [choice for choice in row["choices"] if choice["ending"] == "aborted" and choice["token_ids"]]:
            break
    assert cut
    assert len(cut[0]["token_ids"]) < 450
    assert len(cut[0]["token_ids"]) == len(cut[0]["model_logprobs"]) == len(cut[0]["sample_logprobs"])
    assert "cut short" in error_of(http.post("/v1/chat/completions", json=body), 409)["message"]


def test_who_goes_away_with_an_id_of_his_own_finds_the_whole_answer_later(server, http):
    body = {"model": "clerk", "messages": HELLO, "max_tokens": 300, "id": str(uuid.uuid4()), "seed": 1}
    patience = httpx2.Timeout(20, read=0.05)
    with httpx2.Client(base_url=server.url, timeout=patience) as hasty, pytest.raises(httpx2.ReadTimeout):
        hasty.post("/v1/chat/completions", json=body)
    told = http.post("/v1/chat/completions", json=body).json()
    row = journaled(http, "clerk", body["id"])
    assert row is not None
    assert [choice["message"]["content"] for choice in told["choices"]] == [row["choices"][0]["text"]]
    assert row["choices"][0]["ending"] in ("stop", "length")


# ---- feedback --------------------------------------------------------------------------------------------------------


def test_feedback_goes_to_the_answers_id_and_names_its_choice(client, http):
    told = ask(client, n=2, metadata={"session": "talk"})
    about = {"decision": told.id}
    sent = [
        about | {"kind": "thumb", "value": 1, "item": "1"}, about | {"kind": "correction", "text": "it is 4"},
        about | {"kind": "demonstration", "text": "4"}, about | {"kind": "accept", "item": "0"},
        about | {"kind": "reject"}, about | {"kind": "none"}, about | {"kind": "reward", "value": 0.5},
        {"session": "talk", "kind": "thumb", "value": 1},
    ]  # fmt: skip
    told_of = [http.post("/v1/feedback", json=one) for one in sent]
    assert [one.status_code for one in told_of] == [201] * len(sent)
    back = http.post("/v1/feedback", json=about | {"kind": "retract", "value": told_of[0].json()["id"]})
    assert back.status_code == 201
    row = journaled(http, "clerk", told.id)
    assert row is not None
    kinds = [outcome["kind"] for outcome in row["outcomes"]]
    assert sorted(kinds) == sorted(["thumb", "correction", "demonstration", "accept", "reject", "none", "reward",
                                    "thumb", "retract"])  # fmt: skip


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"kind": "thumb", "value": 1, "item": "1"}, "no choice"),
        ({"kind": "thumb", "value": 1, "item": "yes"}, "no choice"),
        ({"kind": "accept", "position": 1}, "item"),
        ({"kind": "click", "item": "0"}, "cannot learn"),
        ({"kind": "truth", "item": "0"}, "cannot learn"),
        ({"kind": "reward", "value": 7}, "reward_range"),
    ],
)
def test_feedback_that_does_not_fit_is_422(client, http, told, why):
    decision = ask(client).id
    assert why in error_of(http.post("/v1/feedback", json=told | {"decision": decision}), 422)["message"]


def test_a_thumb_that_came_early_counts_once_the_answer_is_there(client, http):
    chosen = str(uuid.uuid4())
    assert http.post("/v1/feedback", json={"decision": chosen, "kind": "thumb", "value": -1}).status_code == 202
    ask(client, extra_body={"id": chosen})
    row = journaled(http, "clerk", chosen)
    assert row is not None
    assert [outcome["value"] for outcome in row["outcomes"]] == [-1.0]
