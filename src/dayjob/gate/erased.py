"""People who were erased, as a judge's docket knows them: by keyed numbers, and no more once they are gone."""

from dayjob.gate.docket import Docket
from dayjob.gate.evidence import number_of
from dayjob.journal.control import Control
from dayjob.journal.readers import Reader
from dayjob.journal.steering import taint_overlooked

Gone = tuple[Docket, frozenset[int], frozenset[int]]


def forget_erased(control: Control, reader: Reader, tenant: str, *, docket: Docket) -> Gone:
    """The docket without the people erased since the last look, their numbers, and the numbers of all who were erased
    since its evidence began: whoever of those comes back is one."""
    marks, through = reader.erased_since(tenant, docket.erased)
    lost = frozenset(number_of(mark) for mark in marks)
    if marks:
        taint_overlooked(control)  # before it is any challenger's turn
        docket = docket.without(lost, through=through)
    since, _ = reader.erased_since(tenant, docket.since)
    return docket, lost, frozenset(number_of(mark) for mark in since)
