"""Nights of a language policy that fall due by themselves: so much feedback, whoever learns, and no more often."""

from dayjob.endings import OutcomeKind
from dayjob.journal.jobs import unfinished
from dayjob.journal.layers import open_layer
from tests.learn.language.test_job import POLICY, TENANT, Night, night, tiny

__all__ = ["night", "tiny"]  # fixtures


def asked(night: Night) -> list[str]:
    """Whose nights are asked for by a look at what is due; they count as done then."""
    night.learner().due.ask()
    jobs = [job.policy for job in unfinished(night.control)]
    night.control.db().execute("UPDATE jobs SET state='succeeded'")
    return jobs


def every(night: Night, count: int) -> None:
    spec = night.control.policy(TENANT, POLICY).spec
    night.control.update_spec(TENANT, POLICY, spec | {"learn_every": count})


def say(night: Night, count: int, user: str = "ann") -> None:
    for _ in range(count):
        night.desk.tell(night.desk.chat("Well?", user=user), OutcomeKind.THUMB, 1, user=user)


def test_so_much_feedback_asks_for_the_nights_of_every_layer_that_may_learn(night: Night):
    ann, _, _ = (open_layer(night.control, TENANT, POLICY, user) for user in ("ann", "ben", "gone"))
    night.control.set_learns(TENANT, "ben", False)
    night.desk.erase("gone")
    every(night, 3)
    say(night, 2)
    assert asked(night) == []
    say(night, 1)
    jobs = asked(night)
    assert jobs[0] == POLICY, "the tenant's first: people's are compared with it"
    assert ann in jobs
    assert open_layer(night.control, TENANT, POLICY, "ben") not in jobs
    assert asked(night) == [], "by another learner too, and where the night made no version"
    say(night, 2)
    assert asked(night) == []
    night.desk.chat("Well?", session="monday")
    night.desk.tell(None, OutcomeKind.THUMB, -1, session="monday", user="ann")
    assert POLICY in asked(night), "a word on a session counts"


def test_by_hand_nothing_is_asked_for(night: Night):
    say(night, 5)
    assert asked(night) == []


def test_whoever_takes_their_feedback_along_starts_the_count_anew(night: Night):
    every(night, 4)
    say(night, 4, user="ben")
    assert asked(night) == [POLICY]
    night.desk.erase("ben")
    say(night, 2)
    assert asked(night) == []
    say(night, 3)
    assert asked(night) == []
    say(night, 1)
    assert asked(night) == [POLICY]
