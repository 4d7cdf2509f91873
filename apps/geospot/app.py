"""Geospot's own small web server: photo in, ten places out, and what people say of them back to dayjob.

It reaches dayjob only through the public client. It has no keys of its own, so it answers on loopback only and checks
Host and Origin; put a proxy with authentication before it to show it to others.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dayjob.client import ApiError, AsyncClient, Feedback, Unreachable
from dayjob.endings import DayjobError, Invalid
from geospot import pages
from geospot.encoder import CLIP_REMEDY, ImageEncoder, NoPhoto, load_image_encoder, open_photo
from geospot.gallery import load_gallery
from geospot.guard import Guard
from geospot.postcard import postcard
from geospot.rounds import NoRound, Round, Rounds, told, verdict_on
from geospot.shortlist import (
    DAYJOB_URL,
    POLICY,
    Shortlist,
    candidates,
    distances,
    item_of,
    relevance,
    retrieve,
    shortlist,
    spec,
)
from geospot.world import World

HERE = Path(__file__).parent
PHOTO_BYTES = 25_000_000
ANSWER_BYTES = 10_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PERSON = "geospot_person"  # the cookie that says who answers, so that no one person counts for everybody
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Geospot:
    """What the handlers work with. ``clip_missing``: what to do to have photos encoded; None with an encoder."""

    world: World
    client: AsyncClient
    policy: str = POLICY
    encoder: ImageEncoder | None = None
    clip_missing: str | None = CLIP_REMEDY
    rounds: Rounds = field(default_factory=Rounds)


class TooLarge(Exception):
    """The body is larger than we take."""


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Serve, then let go of the connections to dayjob."""
    yield
    spot: Geospot = app.state.geospot
    await spot.client.close()


def create_app(geospot: Geospot) -> Starlette:
    """The application: wiring only. It closes the client when it ends."""
    app = Starlette(
        routes=[
            Route("/", home),
            Route("/photo", photo, methods=["POST"]),
            Route("/simulated", simulated, methods=["POST"]),
            Route("/card/{round}.svg", card),
            Route("/answer", answer, methods=["POST"]),
            Route("/pin", pin, methods=["POST"]),
            Route("/teach", teach, methods=["POST"]),
            Route("/learned", learned),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]),
            Middleware(Guard),
            Middleware(GZipMiddleware, minimum_size=1000),
        ],
        exception_handlers=dict.fromkeys(STATUS, refused),
        lifespan=lifespan,
    )
    app.state.geospot = geospot
    return app


# ---- rounds ----------------------------------------------------------------------------------------------------


async def home(request: Request) -> Response:
    spot = _spot(request)
    response = HTMLResponse(pages.page(policy=spot.policy, clip_missing=spot.clip_missing))
    if not _person(request):
        response.set_cookie(PERSON, secrets.token_hex(16), max_age=31_536_000, httponly=True, samesite="strict")
    return response


async def photo(request: Request) -> Response:
    """A photo as the raw body. Answers a round."""
    spot = _spot(request)
    if spot.encoder is None:
        raise NoPhoto(f"No photo can be encoded here. {spot.clip_missing}")
    data = await _body(request, limit=PHOTO_BYTES)
    context_D = await anyio.to_thread.run_sync(_encode, spot.encoder, data)
    found = await anyio.to_thread.run_sync(retrieve, spot.world, context_D)
    return JSONResponse(await _deal(request, found))


async def simulated(request: Request) -> Response:
    """A simulated photo. Answers a round whose truth is kept here."""
    world = _spot(request).world
    photos = await anyio.to_thread.run_sync(lambda: world.photos(1, seed=secrets.randbits(63)))
    found = shortlist(world, photos.context_ND[0], row_K=photos.candidate_NK[0], similarity_K=photos.similarity_NK[0])
    latitude, longitude = (float(degrees) for degrees in photos.place_N2[0])
    return JSONResponse(await _deal(request, found, truth=(latitude, longitude)))


async def card(request: Request) -> Response:
    """The drawn card of a simulated photo."""
    dealt = _spot(request).rounds.get(request.path_params["round"])
    if dealt.truth is None:
        raise NoRound("This round has a photo of its own.")
    drawn = postcard(dealt.card_seed, latitude=dealt.truth[0], postmark=dealt.postmark)
    return Response(drawn, media_type="image/svg+xml")


async def answer(request: Request) -> Response:
    """Which guess is closest; ``item`` null: none is."""
    spot = _spot(request)
    said = await _json(request)
    dealt, item = spot.rounds.get(str(said.get("round"))), said.get("item")
    if item is None:
        await spot.client.feedback(Feedback(decision=dealt.answer.id, kind="none"))
    else:
        await spot.client.feedback(dealt.answer.click(str(item)))
    return JSONResponse(verdict_on(spot.world.gallery, dealt, item=item))


async def pin(request: Request) -> Response:
    """Where the photo was really taken, by the person who knows."""
    spot = _spot(request)
    said = await _json(request)
    dealt = spot.rounds.get(str(said.get("round")))
    truth = _place(said.get("lat"), said.get("lon"))
    await _send_truth(spot, dealt, truth)
    return JSONResponse(told(spot.world.gallery, dealt, truth=truth, opening="Thank you, the place is recorded."))


async def teach(request: Request) -> Response:
    """The true place of a simulated photo, sent because a person asked for it."""
    spot = _spot(request)
    dealt = spot.rounds.get(str((await _json(request)).get("round")))
    if dealt.truth is None:
        raise NoRound("Only a simulated photo has a place that is known here; drop a pin instead.")
    await _send_truth(spot, dealt, dealt.truth)
    told_too = told(spot.world.gallery, dealt, truth=dealt.truth, opening="The true place is recorded too.")
    return JSONResponse({**told_too, "taught": True})


async def learned(request: Request) -> Response:
    """What the policy learned, in plain words."""
    spot = _spot(request)
    policy = await _declared(spot, lambda: spot.client.policy(spot.policy))
    return JSONResponse(pages.learned(policy, await spot.client.report(spot.policy)))


async def _deal(request: Request, found: Shortlist, *, truth: tuple[float, float] | None = None) -> pages.Json:
    spot, gallery = _spot(request), _spot(request).world.gallery
    offered = candidates(gallery, found)
    person = _person(request)
    ranking = await _declared(
        spot, lambda: spot.client.rank(spot.policy, found.context_D, candidates=offered, user=person)
    )
    items = [item_of(int(row)) for row in found.row_K]
    coords_K2 = gallery.coords_G2[found.row_K].tolist()
    places = {item: (latitude, longitude) for item, (latitude, longitude) in zip(items, coords_K2, strict=True)}
    share = dict(zip(items, found.pair_KP[:, 1].tolist(), strict=True))
    postmark = "" if truth is None else pages.postmark(truth)
    spot.rounds.add(
        Round(answer=ranking, places=places, truth=truth, postmark=postmark, card_seed=secrets.randbits(63))
    )
    picture = "" if truth is None else f"/card/{ranking.id}.svg"
    return {**pages.dealt(ranking, places=places, share=share, card=picture), "postmark": postmark}


async def _declared(spot: Geospot, call: Callable[[], Awaitable[Result]]) -> Result:
    """The call's result; a policy that dayjob does not know yet is declared first."""
    try:
        return await call()
    except ApiError as error:
        if error.status != 404:
            raise
    await spot.client.put_policy(spot.policy, spec(spot.world.gallery))
    return await call()


async def _send_truth(spot: Geospot, dealt: Round, truth: tuple[float, float]) -> None:
    km = distances(spot.world.gallery, [one.id for one in dealt.answer.ranking], place=truth)
    await spot.client.feedback(dealt.answer.truth(relevance(km)))


# ---- what comes in ---------------------------------------------------------------------------------------------


def _spot(request: Request) -> Geospot:
    spot: Geospot = request.app.state.geospot
    return spot


def _person(request: Request) -> str | None:
    """The browser's own mark, if it is one that we made."""
    value = request.cookies.get(PERSON, "")
    return f"web-{value}" if len(value) == 32 and all(letter in "0123456789abcdef" for letter in value) else None


def _encode(encoder: ImageEncoder, data: bytes) -> Any:
    return encoder.encode([open_photo(data)])[0]


async def _body(request: Request, *, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(f"That is more than {limit / 1e6:g} MB; send a smaller file.")
        parts.append(part)
    return b"".join(parts)


async def _json(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        raise Invalid("Send JSON with Content-Type: application/json.")
    try:
        said = json.loads(await _body(request, limit=ANSWER_BYTES))
    except ValueError as error:
        raise Invalid("The body is not JSON.") from error
    if not isinstance(said, dict):
        raise Invalid('Send an object such as {"round": "…", "item": "g1"}.')
    return said


def _place(latitude: Any, longitude: Any) -> tuple[float, float]:
    numbers = (latitude, longitude)
    if not all(isinstance(number, int | float) and np.isfinite(number) for number in numbers):
        raise Invalid("lat and lon must be numbers, in degrees.", param="lat")
    if abs(latitude) > 90 or abs(longitude) > 180:
        raise Invalid("lat must lie in -90 to 90 and lon in -180 to 180 degrees.", param="lat")
    return float(latitude), float(longitude)


# ---- what goes wrong -------------------------------------------------------------------------------------------

STATUS: dict[type[Exception], int] = {
    NoPhoto: 422,
    NoRound: 404,
    TooLarge: 413,
    Invalid: 422,
    ApiError: 502,
    Unreachable: 503,
    DayjobError: 502,
    ClientDisconnect: 400,
}


async def refused(_: Request, error: Exception) -> Response:
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    message = str(error)
    if isinstance(error, Unreachable):
        message = "dayjob does not answer. Start it with `dayjob serve --data data`, then try again; nothing is lost."
    return JSONResponse({"error": {"message": message}}, status_code=status)


# ---- starting --------------------------------------------------------------------------------------------------


def find_encoder(clip: str | None) -> tuple[ImageEncoder | None, str | None]:
    """The encoder, or None and what to do. A ``clip`` that was asked for must load: its ValueError is raised."""
    try:
        return load_image_encoder(clip), None
    except ValueError:
        if clip is not None:
            raise
        return None, CLIP_REMEDY


def main() -> None:
    """``python -m geospot.app``"""
    parser = argparse.ArgumentParser(description="Geospot's pages. dayjob's key, if it has keys, in DAYJOB_KEY.")
    parser.add_argument("--dayjob", default=os.environ.get("DAYJOB_URL", DAYJOB_URL), help="where dayjob serves")
    parser.add_argument("--policy", default=POLICY)
    parser.add_argument("--host", default="127.0.0.1", choices=LOOPBACK)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--clip", help="a folder with CLIP ViT-L/14 in Hugging Face format, or a hub's name for it")
    parser.add_argument("--cache", type=Path, default=Path("data/geospot"), help="where gallery embeddings are kept")
    args = parser.parse_args()
    try:
        encoder, missing = find_encoder(args.clip)
        world = World(load_gallery(args.cache))
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    client = AsyncClient(args.dayjob, key=os.environ.get("DAYJOB_KEY"))
    app = create_app(Geospot(world=world, client=client, policy=args.policy, encoder=encoder, clip_missing=missing))
    print(f"Geospot: http://{args.host}:{args.port}" + (" (simulated photos only)" if missing else ""), flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
