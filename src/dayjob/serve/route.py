"""What a route is: the shape of the table in `routes`."""

from dataclasses import dataclass

from pydantic import BaseModel

from dayjob.serve.auth import Scope
from dayjob.serve.call import JSON, Handler

SMALL = "body"  # limited by settings.body_limit_bytes
LARGE = "catalog"  # limited by settings.catalog_limit_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route: where, who, what it takes and what it answers."""

    method: str
    path: str
    handler: Handler
    scope: Scope | None
    summary: str
    answer: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)
    body: type[BaseModel] | tuple[type[BaseModel], ...] | None = None
    body_type: str = ""
    limit: str = SMALL
    query: tuple[tuple[str, bool], ...] = ()  # (name, required)
    token_opens: bool = False
    others: Scope | None = None  # what a key that speaks for nobody in particular needs instead of ``scope``
    note: str = ""  # what else decides who may do what, for the published document
    published: bool = True
    media: str = JSON
