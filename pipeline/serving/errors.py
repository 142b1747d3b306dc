"""Errors of requests and of the server."""

from http import HTTPStatus

from data.errors import ProjectError


class RequestError(ProjectError):
    """A request is rejected; the text and the HTTP status are sent to the client.

    TensorFlow Serving answers with the same status: 400 for INVALID_ARGUMENT, 404 for NOT_FOUND, 503 for UNAVAILABLE,
    504 for DEADLINE_EXCEEDED.
    """

    def __init__(self, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.status = status


class ListenError(ProjectError):
    """The server cannot listen on the given address."""
