"""The parts of `dayjob lab geospot`, apart from what runs them: the command line names them without loading torch."""

from enum import StrEnum


class Part(StrEnum):
    """What a run does, beside writing the table."""

    OFFLINE = "offline"  # the learners in process
    SERVED = "served"  # ours over HTTP
    REPLAY = "replay"  # the published failure, for the dashboard's page
    PAGE = "page"  # nothing else: the table of the pieces that are there
