"""The published OpenAPI 3.1 document, made from the route table and the wire models."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from dayjob.serve.answers import ErrorAnswer
from dayjob.serve.call import JSON
from dayjob.serve.fields import POLICY_NAME_PATTERN
from dayjob.serve.route import Route
from dayjob.version import VERSION

ERRORS = {
    401: "no key, or one that is not known",
    403: "the key may not do this",
    404: "it does not exist",
    409: "a conflict",
    410: "it was erased",
    413: "the body is too large",
    415: "another content type is needed",
    422: "the body does not fit",
    429: "too much at once; Retry-After says when",
    503: "something on the disk is damaged",
    507: "the disk is full",
}


def document(table: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document of the routes that are published."""
    routes = [route for route in table if route.published]
    refs, schemas = _schemas(routes)
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dayjob",
            "version": VERSION,
            "description": "A learning loop for deployed models.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _schemas(routes: list[Route]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    asked = {model for route in routes for model in bodies(route)}
    given = {route.answer for route in routes if route.answer is not None} | {ErrorAnswer}
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in sorted(asked, key=lambda m: m.__name__)),
        *((model, "serialization") for model in sorted(given, key=lambda m: m.__name__)),
    ]
    refs, top = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    return {model: refs[model, mode] for model, mode in wanted}, top["$defs"]


def bodies(route: Route) -> tuple[type[BaseModel], ...]:
    """The models that a route's body may be of."""
    if route.body is None:
        return ()
    return route.body if isinstance(route.body, tuple) else (route.body,)


def _operation(route: Route, refs: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__,
        "parameters": _parameters(route),
        "responses": {str(status): _response(route, refs) for status in route.statuses},
    }
    for status, meaning in ERRORS.items():
        if _may_fail(route, status):
            content = {JSON: {"schema": refs[ErrorAnswer]}}
            operation["responses"][str(status)] = {"description": meaning, "content": content}
    if route.scope is not None:
        operation["security"] = [{}, {"key": []}]
        operation["x-scope"] = route.scope.value
    if route.others is not None:
        operation["x-scope-without-user"] = route.others.value
    said = " ".join(part for part in (_for_others(route), route.note) if part)
    if said:
        operation["description"] = said
    models = bodies(route)
    if models:
        schema = refs[models[0]] if len(models) == 1 else {"anyOf": [refs[model] for model in models]}
        if route.body_type != JSON:
            schema = {"type": "string", "description": "one JSON object a line", "x-line": schema}
        operation["requestBody"] = {"required": True, "content": {route.body_type: {"schema": schema}}}
    return operation


def _for_others(route: Route) -> str:
    if route.scope is None or route.others is None:
        return ""
    return f"A key that has a user of its own needs the scope {route.scope}; any other key needs {route.others}."


def _may_fail(route: Route, status: int) -> bool:
    if route.scope is None:
        return False
    return status not in (413, 415) or bool(route.body_type)


def _response(route: Route, refs: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    schema: dict[str, Any] = refs[route.answer] if route.answer is not None else {"type": "string"}
    return {"description": route.summary, "content": {route.media: {"schema": schema}}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for name in re.findall(r"{(\w+)}", route.path):
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if name == "name":
            schema = {"type": "string", "pattern": POLICY_NAME_PATTERN}
        out.append({"name": name, "in": "path", "required": True, "schema": schema})
    for name, required in route.query:
        out.append({"name": name, "in": "query", "required": required, "schema": {"type": "string"}})
    return out
