"""Under any sequence of lessons, sharing, deletion, retraction, erasure and nights: whose notes stand where.

The model knows nothing of the code: a list of what was said, and rules in a few lines.
"""

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dayjob.endings import NoteScope
from tests.memory.office import POLICY, Office

TENANTS, USERS = ("t", "t2"), ("ann", "bob", "cid", "dee")
QUESTIONS = ("When does the office open?", "Where is the archive?")
ANSWERS = ("At nine sharp.", "Below the stairs.")


class Remembering(RuleBasedStateMachine):
    """An office of two tenants, and what should be remembered in it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.office = Office(self.root / "data")
        self.said: list[dict] = []  # in order; "unsaid" once retracted
        self.shared: list[str] = []  # the last shared last
        self.deleted: set[object] = set()  # ids, and (tenant, question, answer) of agreed notes
        self.verified: set[str] = set()

    @rule(
        tenant=st.sampled_from(("t", "t", "t2")),
        user=st.sampled_from(USERS),
        question=st.sampled_from((0, 0, 1)),
        answer=st.sampled_from((0, 0, 1)),
    )
    def teach(self, tenant, user, question, answer):
        name = self.office.teach(QUESTIONS[question], ANSWERS[answer], user=user, tenant=tenant)
        about = (tenant, question, answer)
        self.said.append({"id": name, "tenant": tenant, "user": user, "about": about, "unsaid": False})

    @rule(
        tenant=st.sampled_from(TENANTS),
        data=st.data(),
        what=st.sampled_from(("share", "unshare", "delete", "retract", "verify")),
    )
    def change(self, tenant, data, what):
        """Do something to any note that stands, agreed ones among them."""
        notes = [one for one in self.office.memory.listed(tenant, POLICY, version="")[0] if one.replaced_by is None]
        if not notes:
            return
        note = data.draw(st.sampled_from(notes))
        agreed = note.id.startswith("agreed-")
        if what == "verify":
            self.office.memory.verified(tenant, POLICY, version="v1", right=[note.id], wrong=[])
            self.verified.add(note.id)
        elif what == "delete":
            self.office.memory.delete(note, by="key")
            about = (tenant, QUESTIONS.index(note.asked), ANSWERS.index(note.text))
            self.deleted.add(about if agreed else note.id)
        elif what == "retract" and not agreed:
            self.office.retract(note.id, note.decision, tenant=tenant)
            next(one for one in self.said if one["id"] == note.id)["unsaid"] = True
        elif not agreed:
            self.shared = [one for one in self.shared if one != note.id] + [note.id] * (what == "share")
            scope = NoteScope.TENANT if what == "share" else NoteScope.USER
            self.office.memory.share(note, scope=scope, by="admin")

    @rule(tenant=st.sampled_from(TENANTS), user=st.sampled_from(USERS))
    def erase(self, tenant, user):
        self.office.erase(user, tenant=tenant)
        self.said = [one for one in self.said if (one["tenant"], one["user"]) != (tenant, user)]
        self.office.memory.listed(tenant, POLICY, version="")
        still = {one["about"] for one in self.said}
        self.deleted = {one for one in self.deleted if isinstance(one, str) or one[0] != tenant or one in still}

    @rule()
    def restart(self):
        self.office.memory = self.office.open()

    def standing(self, tenant: str, question: int) -> dict[str, dict]:
        """The last that each person says on a question, unless they had it forgotten."""
        last = {}
        for one in self.said:
            if one["about"][:2] == (tenant, question) and not one["unsaid"]:
                last[one["user"]] = one
        return {user: one for user, one in last.items() if one["id"] not in self.deleted}

    def tenants(self, tenant: str, question: int) -> object:
        """What everybody gets: an id, or (tenant, question, answer)."""
        standing = self.standing(tenant, question)
        ids = {one["id"] for one in standing.values()}
        shared = [one for one in self.shared if one in ids]
        if shared:
            return shared[-1]
        voices = defaultdict(list)
        for one in standing.values():
            voices[one["about"]].append(self.said.index(one))
        best = [(len(at), max(at), about) for about, at in voices.items() if len(at) >= 3 and about not in self.deleted]
        return max(best)[2] if best else None

    @invariant()
    def everybody_gets_their_own_or_the_tenants_and_nothing_else(self):
        for tenant in TENANTS:
            for question, text in enumerate(QUESTIONS):
                common, standing = self.tenants(tenant, question), self.standing(tenant, question)
                for user in (*USERS, "zoe", None):
                    own = standing.get(user)
                    want = own["id"] if own else common
                    placed = self.office.ask(text, user=user, tenant=tenant, version="v0")
                    self.check(placed, want, text)
                    later = self.office.ask(text, user=user, tenant=tenant, version="v1")
                    assert set(later.ids) <= set(placed.ids) - self.verified
                    assert later == self.office.ask(text, user=user, tenant=tenant, version="v1")

    def check(self, placed, want, question):
        if want is None:
            assert placed.ids == (), (placed, want)
            return
        (name,) = placed.ids
        if isinstance(want, tuple):
            assert name.startswith("agreed-")
            answer = ANSWERS[want[2]]
        else:
            assert name == want
            answer = next(ANSWERS[one["about"][2]] for one in self.said if one["id"] == want)
        assert placed.text.endswith(f'- "{question}" -> "{answer}"')

    def teardown(self) -> None:
        self.office.close()
        shutil.rmtree(self.root)


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
