"""The HTTP server: `/v1/completions`, `/v1/models`, `/health`, and `/metrics` for Prometheus."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from packlm.base.errors import RequestError

from .completions import Completions
from .schema import CompletionRequest


class Metrics:
    """Counts since the start of the server, in Prometheus' text format."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: Counter[int] = Counter()
        self.tokens: Counter[str] = Counter()
        self.seconds = 0.0
        self.running = 0

    def begin(self, most: int) -> bool:
        """Whether another request may run."""
        with self._lock:
            if self.running >= most:
                return False
            self.running += 1
            return True

    def end(self, status: int, seconds: float, usage: dict[str, int]) -> None:
        with self._lock:
            self.running -= 1
            self.requests[status] += 1
            self.seconds += seconds
            self.tokens.update(usage)

    def refused(self, status: int) -> None:
        with self._lock:
            self.requests[status] += 1

    def text(self) -> str:
        with self._lock:
            lines = ["# TYPE packlm_requests_total counter"]
            lines += [f'packlm_requests_total{{status="{status}"}} {count}' for status, count in sorted(self.requests.items())]
            lines += ["# TYPE packlm_request_seconds summary", f"packlm_request_seconds_sum {self.seconds:.6f}"]
            lines += [f"packlm_request_seconds_count {sum(self.requests.values())}", "# TYPE packlm_tokens_total counter"]
            lines += [f'packlm_tokens_total{{kind="{kind}"}} {self.tokens[f"{kind}_tokens"]}' for kind in ("prompt", "completion")]
            lines += ["# TYPE packlm_requests_running gauge", f"packlm_requests_running {self.running}"]
        return "\n".join(lines) + "\n"


def create(completions: Completions, concurrency: int) -> FastAPI:
    """The application; `concurrency`: requests that may run or wait at a time, others are answered with status 503."""
    app, metrics = FastAPI(title=f"packlm: {completions.name}", docs_url="/docs", redoc_url=None), Metrics()

    @app.post("/v1/completions", response_model=None)
    def complete(request: CompletionRequest) -> Any:
        if not metrics.begin(concurrency):
            metrics.refused(503)
            return _error(503, f"{concurrency} requests are waiting already; try again later", {"Retry-After": "1"})
        started = time.monotonic()
        if request.stream:
            return _streamed(completions, request, metrics, started)
        status, usage = 500, dict[str, int]()
        try:
            answer = completions.answer(request)
            status, usage = 200, answer["usage"]
            return answer
        except RequestError as error:
            status = 400
            return _error(400, str(error))
        finally:
            metrics.end(status, time.monotonic() - started, usage)

    @app.get("/v1/models")
    def models() -> Any:
        return {"object": "list", "data": [{"id": completions.name, "object": "model", "owned_by": "packlm"}]}

    @app.get("/health")
    def health() -> Any:
        return {"status": "ok", "model": completions.name, "weights": completions.engine.info.weights[:16]}

    @app.get("/metrics", response_class=PlainTextResponse)
    def prometheus() -> str:
        return metrics.text()

    @app.exception_handler(RequestValidationError)
    def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.refused(400)
        messages = []
        for item in error.errors():
            keys = [str(part) for part in item["loc"] if isinstance(part, str) and part.islower() and part != "body"]
            messages.append(": ".join([*keys[:1], item["msg"].removeprefix("Value error, ")]))
        return _error(400, "; ".join(dict.fromkeys(messages)))

    return app


def _streamed(completions: Completions, request: CompletionRequest, metrics: Metrics, started: float) -> Any:
    try:
        events = completions.stream(request)
    except RequestError as error:
        metrics.end(400, time.monotonic() - started, {})
        return _error(400, str(error))

    def counted() -> Iterator[str]:
        try:
            yield from events
        finally:
            metrics.end(200, time.monotonic() - started, {})

    return StreamingResponse(counted(), media_type="text/event-stream")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status == 400 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)
