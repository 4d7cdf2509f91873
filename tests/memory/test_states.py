"""Where a note stands for a version."""

from hypothesis import given
from hypothesis import strategies as st

from dayjob.endings import NoteChange, NoteState
from dayjob.memory.states import FRESH, standings, state
from dayjob.records import NoteEvent


def event(change, version="", note="n"):
    return NoteEvent(note=note, change=NoteChange(change), version=version, at_ms=0, by="night")


def stand(*events):
    return standings(enumerate(events, start=1)).get("n", FRESH)


def test_from_active_to_consolidated_to_retired():
    learned = stand(event("learned", "v1"))
    verified = stand(event("learned", "v1"), event("verified", "v1"))
    assert [state(one, "v1") for one in (FRESH, learned, verified)] == [
        NoteState.ACTIVE,
        NoteState.CONSOLIDATED,
        NoteState.RETIRED,
    ]


def test_a_rollback_makes_it_active_again_with_nothing_written():
    verified = stand(event("learned", "v1"), event("verified", "v1"))
    assert state(verified, "v0-baseline") is NoteState.ACTIVE
    assert state(verified, "v1") is NoteState.RETIRED  # and forward again


def test_a_version_that_answers_wrongly_after_all_needs_the_note_again():
    failed = stand(event("learned", "v1"), event("verified", "v1"), event("failed", "v1"))
    assert state(failed, "v1") is NoteState.CONSOLIDATED


def test_what_is_known_in_one_wording_is_retired_until_more_is_known():
    recited = stand(event("learned", "v1"), event("recited", "v1"))
    assert (state(recited, "v1"), state(recited, "v2")) == (NoteState.RETIRED, NoteState.ACTIVE)
    wide = stand(event("recited", "v1"), event("verified", "v1"))
    assert (wide.recited, wide.verified) == (frozenset(), {"v1"})
    assert stand(event("verified", "v1"), event("recited", "v1")).verified == frozenset()
    failed = stand(event("learned", "v1"), event("recited", "v1"), event("failed", "v1"))
    assert state(failed, "v1") is NoteState.CONSOLIDATED


def test_a_later_night_retires_it_for_its_own_version_alone():
    both = stand(event("verified", "v1"), event("learned", "v2"))
    assert (state(both, "v1"), state(both, "v2")) == (NoteState.RETIRED, NoteState.CONSOLIDATED)


def test_sharing_and_deleting():
    assert stand(event("verified", "v9"), event("shared")).shared == 2
    assert stand(event("shared"), event("unshared")).shared == 0
    assert stand(event("deleted")).deleted


EVENTS = st.lists(
    st.builds(event, st.sampled_from(list(NoteChange)), st.sampled_from(["v1", "v2"]), st.sampled_from("nm")),
    max_size=12,
)


@given(EVENTS, st.integers(0, 12))
def test_events_may_be_read_in_any_portions(events, cut):
    numbered = list(enumerate(events, start=1))
    assert standings(numbered[cut:], known=standings(numbered[:cut])) == standings(numbered)


@given(EVENTS, st.sampled_from(["v1", "v2"]))
def test_events_of_one_version_say_nothing_of_another(events, version):
    own = [one for one in events if one.version == version or one.change in ("deleted", "shared", "unshared")]
    for note in "nm":
        whole = standings(enumerate(events)).get(note, FRESH)
        assert state(whole, version) is state(standings(enumerate(own)).get(note, FRESH), version)
