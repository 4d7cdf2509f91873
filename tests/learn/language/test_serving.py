"""What a version is compared with (what really answers those whom it is for), and when equal weights return."""

import pytest

from dayjob.endings import VersionStatus
from dayjob.journal.control import put_state
from dayjob.journal.steering import roll_back, taint
from tests.journal.standing import stand
from tests.learn.language.test_job import OPEN, POLICY, TENANT, Night, learned, night, promote, tiny

__all__ = ["night", "tiny"]  # fixtures


@pytest.fixture
def served(night: Night) -> Night:
    """The office's version 1 serves everybody; it says 9:15."""
    night.share(night.desk.correct(OPEN, "9:15", user="bob"))
    night(user=None)
    promote(night, None)
    return night


def test_a_persons_first_version_is_compared_with_what_answers_them_now(served: Night):
    tenants = served.control.pointers(TENANT, POLICY).champion
    served.desk.correct("Where?", "Below")
    name = served().result["challenger"]
    assert learned(served, "ann") == {OPEN, "Where?"}
    exam = served.state(f"exam/{name}")
    assert (exam["against"], exam["personal"]) == (tenants, True)
    assert exam["taught"]["right_before"] == 1, "the office's version knows when lunch is, the base does not"
    promote(served, "ann")
    served.desk.correct("Which?", "That")
    second = served().result["challenger"]
    assert served.state(f"exam/{second}")["against"] == name, "her own serves by now"


def test_what_is_built_again_is_asked_nothing(served: Night):
    """The office's version learned from somebody erased: a person's is compared with the base until it is replaced."""
    served.desk.correct("Where?", "Below")
    tenants = served.control.pointers(TENANT, POLICY).champion
    name = served().result["challenger"]
    with served.control.write() as db:
        asked = {"asked": OPEN, "before": "9:15", "after": "9:15"}
        exam = served.state(f"exam/{name}") | {"questions": [asked]}
        put_state(db, TENANT, served.address(), name=f"exam/{name}", state=exam)
    stand(served.control, TENANT, served.address(), [name], VersionStatus.HELD)
    taint(served.control, TENANT, [(POLICY, tenants)])
    assert served.state(f"exam/{name}")["questions"] == [asked | {"before": ""}], "its answers may be theirs"
    served.control.db().execute("DELETE FROM jobs WHERE policy=?", (POLICY,))
    again = served().result["challenger"]
    assert again != name
    assert served.state(f"exam/{again}")["against"] == "v0-baseline"


def test_equal_weights_have_another_look_once_something_else_serves(served: Night):
    """Nothing was said since: the same range, the same bytes."""
    served.desk.correct("Where?", "Below")
    name = served().result["challenger"]
    first = served.control.version(TENANT, served.address(), name)
    stand(served.control, TENANT, served.address(), [name], VersionStatus.HELD)
    held = served()
    assert held.result["challenger"] is None
    assert f"equal to {name}" in held.result["reason"]
    assert "looked at again when another version serves" in held.result["reason"]
    roll_back(served.control, served.control.pointers(TENANT, POLICY), to=None, evidence={})
    again = served().result["challenger"]
    second = served.control.version(TENANT, served.address(), again)
    assert (second.digest, second.number) == (first.digest, first.number + 1)
    assert served.control.version(TENANT, served.address(), name).status is VersionStatus.HELD
    assert (second.status, served.state(f"exam/{again}")["against"]) == (VersionStatus.WAITING, "v0-baseline")
    assert served().result["challenger"] == again, "it waits for its look: there is no third"


def test_equal_weights_that_were_passed_over_have_their_look(served: Night):
    served.desk.correct("Where?", "Below")
    name = served().result["challenger"]
    stand(served.control, TENANT, served.address(), [name], VersionStatus.SUPERSEDED)
    assert served().result["challenger"] not in (None, name)
    stand(served.control, TENANT, served.address(), [served.versions()[-1].name], VersionStatus.REJECTED)
    assert served().result["challenger"] is None, "refused weights stay out"
