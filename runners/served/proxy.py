"""A proxy before vLLM's prefill and decode workers: a prompt is computed by one, and its answer decoded by another.

    python -m runners.served.proxy --port 8000 --prefill http://127.0.0.1:8100 --decode http://127.0.0.1:8200

The prefill worker is asked for one token; what it returns as `kv_transfer_params` tells the decode worker where the
KV cache of the prompt lies. Workers of each kind take turns.
"""

import argparse
import asyncio
import itertools
import json
import uuid
from collections.abc import Sequence
from typing import Any

from aiohttp import ClientConnectionError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

HANDOVER = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""What makes NixlConnector keep a prompt's KV cache for whoever asks for it; other connectors take no notice."""

ONE_TOKEN = {"stream": False, "max_tokens": 1, "min_tokens": 1}
MOST_BYTES = 1 << 28


class Proxy:
    """Hands each completion from a prefill worker to a decode worker."""

    def __init__(self, session: ClientSession, prefill: Sequence[str], decode: Sequence[str]) -> None:
        self._session = session
        self._prefill = itertools.cycle(prefill)
        self._decode = itertools.cycle(decode)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """The decode worker's answer as it comes; an error of either worker as it stands."""
        asked = await request.json()
        headers = {"X-Request-Id": uuid.uuid4().hex}
        url = next(self._prefill) + request.path
        async with self._session.post(url, json=_prefilled(asked), headers=headers) as response:
            if not response.ok:
                return web.Response(status=response.status, body=await response.read(), content_type="application/json")
            handed = (await response.json()).get("kv_transfer_params")
        body = asked | ({"kv_transfer_params": handed} if handed else {})
        async with self._session.post(next(self._decode) + request.path, json=body, headers=headers) as response:
            return await _passed_on(response, request)

    async def look_up(self, request: web.Request) -> web.StreamResponse:
        """What a decode worker says."""
        async with self._session.get(next(self._decode) + request.path) as response:
            return await _passed_on(response, request)


def _prefilled(asked: dict[str, Any]) -> dict[str, Any]:
    """The same experiment, for the prompt and one token of the answer."""
    one = {key: value for key, value in asked.items() if key not in ("stream_options", "max_completion_tokens")}
    return one | ONE_TOKEN | {"kv_transfer_params": HANDOVER}


async def _passed_on(response: ClientResponse, request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(status=response.status, headers={"Content-Type": response.headers["Content-Type"]})
    await answer.prepare(request)
    async for chunk in response.content.iter_any():
        await answer.write(chunk)
    await answer.write_eof()
    return answer


@web.middleware
async def _unreachable(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except ClientConnectionError as error:
        text = json.dumps({"error": {"message": f"a worker cannot be reached: {error}", "code": 502}})
        return web.Response(status=502, text=text, content_type="application/json")


async def serve(port: int, prefill: Sequence[str], decode: Sequence[str], *, host: str = "127.0.0.1") -> None:
    """Until it is cancelled."""
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None)) as session:
        proxy = Proxy(session, prefill, decode)
        application = web.Application(client_max_size=MOST_BYTES, middlewares=[_unreachable])
        application.router.add_post("/v1/completions", proxy.complete)
        application.router.add_post("/v1/chat/completions", proxy.complete)
        application.router.add_get("/v1/models", proxy.look_up)
        application.router.add_get("/version", proxy.look_up)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="runners.served.proxy", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefill", nargs="+", required=True, metavar="URL")
    parser.add_argument("--decode", nargs="+", required=True, metavar="URL")
    asked = parser.parse_args()
    asyncio.run(serve(asked.port, asked.prefill, asked.decode, host=asked.host))


if __name__ == "__main__":
    main()
