"""The state that all routes share: the model, the limits, the token, and whether the server is about to stop."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from pipeline.sections.serving import ServingConfig
from pipeline.serving.errors import RequestError
from pipeline.serving.metrics import Metrics
from pipeline.serving.model import LoadedModel
from pipeline.serving.pool import Pool
from pipeline.serving.versions import Versions

Compute = Callable[[bytes, LoadedModel], bytes]


@dataclass
class Service:
    """One model that is being served."""

    versions: Versions
    config: ServingConfig
    metrics: Metrics
    token: str = ""
    """Bearer token that clients must send; empty for no authorization."""
    draining: bool = False
    """Whether the server is about to stop."""
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = Pool(self.config, self.metrics.taken)

    @property
    def ready(self) -> bool:
        """Whether the server accepts requests: a version is loaded, and the server is not about to stop."""
        return self.versions.current is not None and not self.draining

    async def authorize(self, request: Request) -> None:
        """Rejects requests without the token.

        Raises:
            RequestError: The token is missing or wrong.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.encode(), self.token.encode())
        if self.token and not (right and scheme.lower() == "bearer"):
            raise RequestError("needs the header 'Authorization: Bearer TOKEN'", HTTPStatus.UNAUTHORIZED)

    async def answer(self, request: Request, compute: Compute) -> Response:
        """Reads a request's body and computes its answer with the model that is served now.

        Raises:
            RequestError: No model of that name is served, the server is busy, or the body is rejected.
        """
        model = self.versions.model(*asked(request))
        read = partial(read_body, request, self.config.max_body_bytes)
        return json_response(await self.pool.run(read, lambda body: compute(body, model)))


def asked(request: Request) -> tuple[str, int | None]:
    """Model and version in a request's path; None stands for the version that is served."""
    return request.path_params["name"], request.path_params.get("version")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Reads the body of a request.

    Raises:
        RequestError: It is larger than allowed, and the rest of it is not read; it is incomplete; or it is compressed.
    """
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise RequestError(
            f"Content-Encoding {encoding!r} is not supported; send the body as it is", HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        )
    body = bytearray()
    if int(request.headers.get("content-length", "0")) <= max_bytes:
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    break
            else:
                return bytes(body)
        except ClientDisconnect:
            raise RequestError("the client went away before the body's end") from None
    raise RequestError(f"the body exceeds serving.max_body_bytes={max_bytes}", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def json_response(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A response whose body is already encoded as JSON."""
    return Response(body, status, media_type="application/json")
