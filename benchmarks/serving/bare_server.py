"""A grpc.aio server without our code: memory that a cut call leaves in it is the library's.

    python -m benchmarks.serving.bare_server SECONDS

It answers every Classify after SECONDS, in its own process, until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

import grpc

from sentimill.server.sentiment_service import SERVICE


async def main(seconds: float) -> None:
    """Serve on a free port, and print the port."""

    async def answer(request: bytes, _: object) -> bytes:
        await asyncio.sleep(seconds)
        return request

    server = grpc.aio.server()
    classify: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Classify": classify}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
