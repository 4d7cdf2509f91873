"""Health, metrics and the published OpenAPI document."""

import asyncio

from starlette.responses import Response

from dayjob.serve.call import Call, answer


async def healthz(call: Call) -> Response:
    """Whether the process lives. It says so as long as it can answer."""
    del call
    return answer({"status": "ok"})


async def readyz(call: Call) -> Response:
    """Whether requests are served: writes included."""
    hub = call.hub
    if hub.store.broken:
        return answer({"status": "read-only", "reason": "the disk failed to sync: restart after checking it"}, 503)
    return answer({"status": "ready", "policies": len(hub.live), "damaged": hub.damaged})


async def metrics(call: Call) -> Response:
    """Prometheus text."""
    for key in list(call.hub.live):
        report = await asyncio.to_thread(call.hub.control.state, *key, "report")
        call.service.metrics.set_lag(*key, lag=int((report or {}).get("gate", {}).get("lag", 0)))
    body = call.service.metrics.render(call.hub.store.waiting)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
