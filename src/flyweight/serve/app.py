"""The routes of the service, put together: FastAPI behind the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

import flyweight
from flyweight.serve.chat import chat_events, whole_chat
from flyweight.serve.completions import completion_events, embeddings, whole_completion
from flyweight.serve.faults import Fault, invalid
from flyweight.serve.gate import TAKE, App, Gate
from flyweight.serve.metering import joules_told
from flyweight.serve.prepare import prepare_chat, prepare_completion
from flyweight.serve.responses import response_events, whole_response
from flyweight.serve.responses_wire import ResponsesRequest
from flyweight.serve.service import Service, unless_gone
from flyweight.serve.wire import ChatRequest, CompletionRequest, EmbeddingRequest
from flyweight.sticker_card import Boundaries

PAGE = Path(__file__).parent / "page"


class ErrorBody(BaseModel):
    """What every refusal says."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """A refusal, in OpenAI's shape."""

    error: ErrorBody


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": told}
    for status, told in {
        400: "The request is wrong; the message says where.",
        401: "A key is wanted.",
        403: "Another site's page, or a host that is not this one.",
        404: "There is no such model.",
        413: "The request is too large.",
        415: "The request is not JSON.",
        429: "Too many wait, or a key's limit is reached: Retry-After says when to come again.",
        500: "The engine failed.",
        503: "The model cannot be loaded now, or the service is ending.",
        504: "The answer took too long.",
    }.items()
}
_STREAMED = {200: {"content": {"text/event-stream": {}}, "description": "Whole, or as events."}}


def make_app(service: Service, host: str = "localhost") -> App:
    """The service as an ASGI application that listens at `host`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(service.sweep())
        yield
        sweeping.cancel()
        await service.shelf.close()
        service.metering.close()

    app = FastAPI(
        title="Flyweight",
        version=flyweight.__version__,
        description="OpenAI's interface to models on this machine.",
        docs_url=None,  # its page loads from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_answers(app, service)
    _add_rest(app, service)
    app.add_exception_handler(Fault, _on_fault)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _on_http)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _on_failure)  # it is logged as well
    gate = Gate(app, service.keys, service.check, host)
    return _counted(gate, service)


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", responses=REFUSALS | _STREAMED)
    async def chat(request: ChatRequest, http: HttpRequest) -> Response:
        """The answer to a conversation."""
        return await service.answer(
            http,
            request.model,
            bool(request.stream),
            lambda loaded: prepare_chat(request, loaded),
            lambda loaded, prepared, answers: whole_chat(request, loaded, prepared, answers),
            lambda loaded, prepared, answers: chat_events(request, loaded, prepared, answers),
        )

    @app.post("/v1/completions", responses=REFUSALS | _STREAMED)
    async def complete(request: CompletionRequest, http: HttpRequest) -> Response:
        """A text gone on with."""
        return await service.answer(
            http,
            request.model,
            bool(request.stream),
            lambda loaded: prepare_completion(request, loaded),
            lambda loaded, _, answers: whole_completion(request, loaded, answers),
            lambda loaded, _, answers: completion_events(request, loaded, answers),
        )

    @app.post("/v1/responses", responses=REFUSALS | _STREAMED)
    async def respond(request: ResponsesRequest, http: HttpRequest) -> Response:
        """The answer to a conversation, as items."""
        chat = request.as_chat()
        return await service.answer(
            http,
            request.model,
            bool(request.stream),
            lambda loaded: prepare_chat(chat, loaded),
            lambda loaded, prepared, answers: whole_response(request, loaded, prepared, answers),
            lambda loaded, prepared, answers: response_events(request, loaded, prepared, answers),
        )

    @app.post("/v1/embeddings", responses=REFUSALS)
    async def embed(request: EmbeddingRequest, http: HttpRequest) -> Response:
        """Texts as vectors."""

        async def answer() -> Response:
            async with service.in_time(), service.shelf.use(request.model) as loaded:
                await service.shelf.reserve_embedder(loaded)
                took: list[Boundaries] = []
                embed = service.metered_embed(loaded, http, took)
                body = await embeddings(request, loaded, embed)
                body["usage"]["joules"] = joules_told(took)
                service.count_tokens(http, loaded, body["usage"]["prompt_tokens"], 0, 0)
                return JSONResponse(body)

        return await unless_gone(http, answer())


def _add_rest(app: FastAPI, service: Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {each: REFUSALS[each] for each in (401, 403)}

    @app.get("/v1/models", responses=refusals)
    async def models() -> Response:
        """The models that there are."""
        books = service.shelf.books.values()
        return JSONResponse({"object": "list", "data": [service.describe(each) for each in books]})

    missing = {404: REFUSALS[404]}
    picture = {200: {"content": {"image/svg+xml": {}}, "description": "An SVG picture."}}

    @app.get(
        "/v1/models/{model:path}/sticker.svg",
        responses=refusals | missing | picture,
        response_class=FileResponse,
    )
    async def sticker(model: str) -> Response:
        """What an answer of a model costs, as a picture."""
        file = service.shelf.book(model).sticker
        if file is None:
            raise Fault(404, f"{model} has no sticker: `flyweight sticker` makes one.")
        return FileResponse(file, media_type="image/svg+xml")

    @app.get("/v1/models/{model:path}", responses=refusals | missing)
    async def model(model: str) -> Response:
        """One model."""
        return JSONResponse(service.describe(service.shelf.book(model)))

    @app.get("/health", responses={403: REFUSALS[403]})
    async def health() -> Response:
        """Whether the service takes requests."""
        told = {"status": "draining" if service.draining else "ok"}
        return JSONResponse(told, 503 if service.draining else 200)

    metrics_text = {200: {"content": {"text/plain": {}}, "description": "Prometheus' text."}}

    @app.get("/metrics", responses=refusals | metrics_text, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """What it has done, in Prometheus' words."""
        service.gauge()
        return Response(service.metrics.text(), media_type=service.metrics.kind)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", _Fresh(directory=PAGE), name="page")


class _Fresh(StaticFiles):
    """The page's files, which a browser asks about again: an update is never mixed with the old."""

    def file_response(self, *given: Any, **named: Any) -> Response:
        """Starlette's call."""
        response = super().file_response(*given, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _counted(app: App, service: Service) -> App:
    """The application, with its responses counted by path and status."""
    known = TAKE | {"/v1/models", "/health", "/metrics", "/"}

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        async def send_counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in known else "other"
                service.metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        await app(scope, receive, send_counted)

    return counted


async def _on_fault(http: HttpRequest, fault: Fault) -> Response:
    return JSONResponse(fault.body, fault.status, headers=fault.headers)


async def _on_invalid(http: HttpRequest, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    return await _on_fault(http, invalid(first, first["loc"][1:]))


async def _on_failure(http: HttpRequest, error: Exception) -> Response:
    return await _on_fault(http, Fault(500, "The service failed at this. Its log says how."))


async def _on_http(http: HttpRequest, error: HTTPException) -> Response:
    told = {404: "There is nothing at this address.", 405: "This address takes another method."}
    fault = Fault(error.status_code, told.get(error.status_code, str(error.detail)))
    response = await _on_fault(http, fault)
    response.headers.update(error.headers or {})  # what the address takes instead
    return response


__all__ = ["make_app"]
