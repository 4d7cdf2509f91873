"""Health, metrics and the published OpenAPI document."""

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
    body = call.service.metrics.render(call.hub.store.waiting)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
