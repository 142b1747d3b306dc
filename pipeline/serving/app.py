"""The HTTP application: all routes, and errors as JSON."""

from http import HTTPStatus

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from pipeline.serving import routes
from pipeline.serving.errors import RequestError
from pipeline.serving.metrics import Observed
from pipeline.serving.service import Service

_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}
_PUBLIC = (routes.probe_routes, routes.page_routes)
_PROTECTED = (routes.tf_serving_routes, routes.open_inference_routes, routes.metrics_routes, routes.class_routes)


def create_app(service: Service) -> ASGIApp:
    """Creates the application of a service; every error is `{"error": "..."}`, as in both protocols."""
    app = FastAPI(openapi_url=None)
    _tell_errors(app)
    for make in _PUBLIC:
        app.include_router(make(service))
    for make in _PROTECTED:
        app.include_router(make(service), dependencies=[Depends(service.authorize)])
    return Observed(app, service.metrics)


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return JSONResponse({"error": str(error)}, error.status, _HEADERS.get(error.status))

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        text = f"Malformed request: {request.method} {request.url.path}: {error.detail}"
        return JSONResponse({"error": text}, error.status_code, error.headers)

    @app.exception_handler(Exception)  # uvicorn logs it
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"internal error: {type(error).__name__}"}, HTTPStatus.INTERNAL_SERVER_ERROR)
