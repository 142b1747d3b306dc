"""The routes of the server."""

import secrets
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from data.masks import palette
from pipeline.report.render import render
from pipeline.serving import open_inference, tf_serving
from pipeline.serving.service import Service, asked, json_response

_NAME = "deeplab-tfx"


def tf_serving_routes(service: Service) -> APIRouter:
    """TensorFlow Serving's REST API."""
    routes, versions = APIRouter(prefix="/v1/models/{name}"), service.versions

    @routes.post(":predict")
    @routes.post("/versions/{version:int}:predict")
    async def predict(request: Request) -> Response:
        return await service.answer(request, tf_serving.predict)

    @routes.get("")
    @routes.get("/versions/{version:int}")
    async def status(request: Request) -> Response:
        return json_response(tf_serving.status(versions.statuses_of(*asked(request))))

    @routes.get("/metadata")
    @routes.get("/versions/{version:int}/metadata")
    async def metadata(request: Request) -> Response:
        return json_response(tf_serving.metadata(versions.model(*asked(request))))

    return routes


def open_inference_routes(service: Service) -> APIRouter:
    """The Open Inference Protocol, except for its probes."""
    routes, versions = APIRouter(prefix="/v2"), service.versions

    @routes.get("")
    async def server() -> dict[str, Any]:
        return {"name": _NAME, "version": _own_version(), "extensions": []}

    @routes.get("/models/{name}")
    @routes.get("/models/{name}/versions/{version:int}")
    async def model(request: Request) -> dict[str, Any]:
        return open_inference.model_metadata(versions.model(*asked(request)))

    @routes.post("/models/{name}/infer")
    @routes.post("/models/{name}/versions/{version:int}/infer")
    async def infer(request: Request) -> Response:
        open_inference.require_json(request.headers)
        return await service.answer(request, open_inference.infer)

    return routes


def _own_version() -> str:
    try:
        return installed_version(_NAME)
    except PackageNotFoundError:
        return "checkout"


def probe_routes(service: Service) -> APIRouter:
    """Liveness and readiness probes, which orchestrators request without a token."""
    routes = APIRouter(prefix="/v2")

    @routes.head("/health/live")
    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.head("/health/ready")
    @routes.get("/health/ready")
    async def ready() -> JSONResponse:
        return JSONResponse({"ready": service.ready}, _status(service.ready))

    @routes.get("/models/{name}/ready")
    @routes.get("/models/{name}/versions/{version:int}/ready")
    async def model_ready(request: Request) -> JSONResponse:
        name = service.versions.model(*asked(request)).name
        return JSONResponse({"name": name, "ready": service.ready}, _status(service.ready))

    return routes


def _status(ready: bool) -> HTTPStatus:
    return HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE


def metrics_routes(service: Service) -> APIRouter:
    """Prometheus' metrics."""
    routes = APIRouter()

    @routes.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def page_routes(service: Service) -> APIRouter:
    """The web page for trying the model. It contains nothing that needs protection by the token."""
    routes = APIRouter()

    @routes.head("/")
    @routes.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(
            render(
                "serving.html",
                model=service.versions.name,
                max_pixels=service.config.max_pixels,
                token_needed=bool(service.token),
                nonce=secrets.token_urlsafe(16),
            )
        )

    return routes


def class_routes(service: Service) -> APIRouter:
    """The classes for the page, in the order of their ids, with the project's common colours."""
    routes = APIRouter()

    @routes.get("/v1/models/{name}/versions/{version:int}/classes")
    async def classes(request: Request) -> list[dict[str, Any]]:
        names = service.versions.model(*asked(request)).label_map.names
        return [{"name": text, "color": color} for text, color in zip(names, palette(len(names)), strict=True)]

    return routes
