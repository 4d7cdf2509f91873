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
    damaged = dict(hub.damaged)
    if damaged and call.service.keys:
        # Whoever asks without a key learns that something is wrong, not what tenants and their policies are called.
        damaged = {"*": f"{len(damaged)} versions do not serve: the dashboard names those of a key's tenant"}
    return answer({"status": "ready", "policies": len(hub.live) + len(hub.spoken), "damaged": damaged})


async def metrics(call: Call) -> Response:
    """Prometheus text; of policies, those of the key's tenant."""
    body = await asyncio.to_thread(_measured, call)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


def _measured(call: Call) -> bytes:
    hub, lags = call.hub, {}
    for tenant, policy in list(hub.live):
        if tenant == call.tenant:
            report = hub.control.state(tenant, policy, "report") or {}
            lags[policy] = int(report.get("gate", {}).get("lag", 0))
    damaged = sum(name.startswith(f"{call.tenant}/") for name in dict(hub.damaged))
    return call.service.metrics.render(call.tenant, lags, waiting=hub.store.waiting, damaged=damaged)
