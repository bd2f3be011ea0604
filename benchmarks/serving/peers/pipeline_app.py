"""The bundle behind a transformers pipeline, as its documentation serves one.

It follows "Using pipelines for a webserver", with dynamic batching: Starlette, one queue, and one
loop that gives the pipeline all waiting texts. It runs in Infinity's environment, on optimum's ONNX
Runtime.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import onnxruntime
import uvicorn
from checkpoint import write_checkpoint
from model import MAX_BATCH, MAX_WAIT_MS
from optimum.onnxruntime import ORTModelForSequenceClassification
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from transformers import AutoTokenizer, pipeline

Waiting = asyncio.Queue[tuple[str, asyncio.Future[Any]]]


async def answer(request: Request) -> JSONResponse:
    """Queue one text and wait for its probs."""
    text = (await request.json())["text"]
    found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    await request.app.state.waiting.put((text, found))
    return JSONResponse(await found)


def load() -> Any:
    """Return the pipeline on PEER_THREADS."""
    folder = write_checkpoint()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
    model = ORTModelForSequenceClassification.from_pretrained(folder, session_options=options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)


async def serve(pipe: Any, waiting: Waiting) -> None:
    """Ask the pipeline for what waits, batch by batch."""
    while True:
        batch = [await waiting.get()]
        while len(batch) < MAX_BATCH:
            try:
                batch.append(await asyncio.wait_for(waiting.get(), MAX_WAIT_MS / 1000))
            except TimeoutError:
                break
        texts = [text for text, _ in batch]
        answers = await asyncio.to_thread(pipe, texts, batch_size=len(texts), truncation=True)
        for (_, found), each in zip(batch, answers, strict=True):
            if not found.done():
                found.set_result(each)


@asynccontextmanager
async def running(app: Starlette) -> AsyncIterator[None]:
    """Keep the loop for as long as the server runs."""
    app.state.waiting = Waiting()
    serving = asyncio.create_task(serve(load(), app.state.waiting))
    yield
    serving.cancel()


if __name__ == "__main__":
    routes = [Route("/", answer, methods=["POST"])]
    app = Starlette(routes=routes, lifespan=running)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
