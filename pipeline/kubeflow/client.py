"""A Kubeflow Pipelines server: its address, authorization, timeouts, repeated requests and errors.

A token is never printed: not in an error, a representation or an address.

Requests go through `kfp_server_api`, the REST client that the kfp SDK generates from the server's API and is itself
built on. The SDK's `kfp.Client` is not used (kfp 2.16.1, `kfp/client/client.py`): it sets no timeout, asks an absent
server five times with a stack trace each, waits forever on a cancelled run, takes a login page for an empty answer,
keeps settings in the home directory, and takes seconds to import.

ServerError             the server or the connection to it failed to do what was asked
├── ServerUnavailable   it may succeed later: not reached, no answer in time, overloaded, 5xx
├── ServerRefused       it will not succeed: 4xx, or an answer that is not one of Kubeflow Pipelines
└── NotFound            the requested object does not exist
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import kfp_server_api as api
import tenacity
import urllib3

from data.errors import ConfigError, ProjectError
from pipeline.tokens import check_token, read_token

TOKEN_VARIABLE = "DEEPLAB_KFP_TOKEN"  # noqa: S105 - the name of the variable, not its value
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubernetes puts the token that it makes for a pod whose volumes project one for audience
pipelines.kubeflow.org; the kfp SDK looks there too."""

_PAGE_SIZE = 100
_TEMPORARY = frozenset({408, 425, 429})
_INSECURE = "{}: no secure connection: {}; a private authority's certificate is given with --ca-file"


class ServerError(ProjectError):
    """The server or the connection to it failed to do what was asked."""


class ServerUnavailable(ServerError):
    """The request may succeed later."""


class ServerRefused(ServerError):
    """The request will not succeed."""


class NotFound(ServerError):
    """The requested object is not on the server."""


@dataclass(frozen=True)
class Connection:
    """The address of a server, and how requests to it are sent."""

    host: str
    """Base URL, with the path of a proxy if there is one, such as https://kubeflow.example/pipeline."""
    token: str = field(default="", repr=False)
    """Sent as bearer token; empty sends none."""
    token_file: Path | None = None
    """File of the token; it is read for each request, so that a renewed token is used."""
    namespace: str = ""
    """Namespace of the user, where the server serves several; empty otherwise."""
    ca_file: Path | None = None
    """PEM file of the authority that signed the server's certificate, if it is a private one."""
    timeout: float = 30.0
    """Seconds to wait for an answer."""
    attempts: int = 3
    """How many times a request that may safely be repeated is sent."""
    pause: float = 1.0
    """Seconds before the second attempt; the time doubles with each further one."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.host)
            wrong = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
        except ValueError:
            wrong = True
        if wrong:
            raise ConfigError(
                f"--host {self.host!r}: is not an address; allowed: http://name[:port][/path] or https://..."
            )
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                "--host: holds a user name or a password, which would be printed with the address; allowed: a token in "
                f"{TOKEN_VARIABLE}"
            )
        if parts.query or parts.fragment:
            raise ConfigError(f"--host {self.host!r}: has a query or a fragment; allowed: http(s)://name[:port][/path]")
        if self.token:
            check_token(self.token, TOKEN_VARIABLE)
        if self.token_file:
            read_token(self.token_file)
        if self.ca_file and not self.ca_file.is_file():
            raise ConfigError(f"{self.ca_file}: no such file; allowed: a PEM file of certificates")

    def link(self, page: str, key: str) -> str:
        """URL of a page of the server's user interface: `runs` or `recurringrun`."""
        return f"{self.host.rstrip('/')}/#/{page}/details/{key}"


def connect(
    host: str,
    *,
    token_file: Path | None = None,
    in_cluster: bool = False,
    namespace: str = "",
    ca_file: Path | None = None,
    timeout: float = 30.0,
) -> "Server":
    """The server at `host`. Without `token_file` or `in_cluster`, the token is that of the environment, if any."""
    if in_cluster and token_file:
        raise ConfigError("--in-cluster and --token-file both name a token; allowed: one of them")
    file = SERVICE_ACCOUNT_TOKEN if in_cluster else token_file
    token = "" if file else os.environ.get(TOKEN_VARIABLE, "").strip()
    return Server(Connection(host, token, file, namespace, ca_file, timeout))


class _ApiClient(api.ApiClient):
    """The generated client, with timeouts, repeated attempts where those are safe, and readable errors."""

    def __init__(self, connection: Connection) -> None:
        configuration = api.Configuration(host=connection.host.rstrip("/"))
        configuration.retries = urllib3.Retry(total=False)  # Redirects are not followed, either.
        configuration.client_side_validation = False
        if connection.ca_file:
            configuration.ssl_ca_cert = str(connection.ca_file)
        if connection.token or connection.token_file:
            configuration.api_key = {"authorization": connection.token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        if connection.token_file:
            token_file = connection.token_file
            configuration.refresh_api_key_hook = lambda used: used.api_key.update(authorization=read_token(token_file))
        super().__init__(configuration)
        self.connection = connection

    def call_api(self, resource_path: str, method: str, *args: Any, **kwargs: Any) -> Any:
        kwargs["_request_timeout"] = (self.connection.timeout, self.connection.timeout)
        call = super().call_api
        if method == "POST" and not resource_path.endswith((":enable", ":disable")):
            return call(resource_path, method, *args, **kwargs)
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.connection.attempts),
            wait=tenacity.wait_exponential(self.connection.pause),
            retry=tenacity.retry_if_exception_type(ServerUnavailable),
            reraise=True,
        )
        return attempts(call, resource_path, method, *args, **kwargs)

    def request(self, method: str, url: str, **kwargs: Any) -> Any:
        """Sends one request, and raises what its failure means."""
        asked = f"{method} {url}"
        try:
            return super().request(method, url, **kwargs)
        except api.ApiException as error:
            if not error.status:  # The REST client passes on an SSLError in this way.
                raise ServerRefused(_INSECURE.format(asked, error.reason.rpartition("\n")[2])) from None
            status, text = error.status, f"{asked}: {error.status} {_message(error)}"
            if token := self.configuration.api_key.get("authorization"):
                text = text.replace(token, "***")
            if status == 401 or 300 <= status < 400:
                raise ServerRefused(
                    f"{text}\nthe server requires a token, and that of this request is missing, wrong or expired; put "
                    f"one into {TOKEN_VARIABLE}, or give --token-file or, in a pod, --in-cluster"
                ) from None
            if status == 404:
                raise NotFound(text) from None
            if status >= 500 or status in _TEMPORARY:
                raise ServerUnavailable(text) from None
            raise ServerRefused(text) from None
        except urllib3.exceptions.LocationValueError as error:
            raise ServerRefused(f"{asked}: the address cannot be used: {error}") from None
        except urllib3.exceptions.SSLError as error:
            raise ServerRefused(_INSECURE.format(asked, error)) from None
        except urllib3.exceptions.NewConnectionError as error:
            reason = str(error).rpartition(": ")[2]
            raise ServerUnavailable(f"{asked}: the server cannot be reached: {reason}") from None
        except urllib3.exceptions.TimeoutError:
            raise ServerUnavailable(f"{asked}: no answer within {self.connection.timeout:g} s") from None
        except urllib3.exceptions.HTTPError as error:
            raise ServerUnavailable(f"{asked}: the connection broke: {error}") from None

    def deserialize(self, response: Any, response_type: Any) -> Any:
        try:
            if isinstance(json.loads(response.data), dict):
                return super().deserialize(response, response_type)
        except (ValueError, api.ApiException):
            pass
        raise ServerRefused(
            f"{self.connection.host}: the answer is not one of Kubeflow Pipelines, perhaps a login page; "
            "allowed for --host: the address of the API, such as https://kubeflow.example/pipeline"
        )


def _message(error: api.ApiException) -> str:
    """The server's message: the sentence meant for users if there is one, else all of it."""
    try:
        body = json.loads(error.body or "")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        target = (error.headers or {}).get("Location")
        redirected = f", redirected to {urlsplit(target)._replace(query='').geturl()}" if target else ""
        return f"{error.reason}{redirected}"
    details = body.get("details") or []
    for_users = [detail.get("message") or detail.get("error_message") for detail in details if isinstance(detail, dict)]
    return next(filter(None, for_users), None) or body.get("message") or body.get("error") or str(error.reason)


class Server:
    """The calls that this project makes, each in terms of the API's own models."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        client = _ApiClient(connection)
        self._to_json = client.sanitize_for_serialization
        self._experiments = api.ExperimentServiceApi(client)
        self._runs = api.RunServiceApi(client)
        self._recurring_runs = api.RecurringRunServiceApi(client)

    def find_experiment(self, name: str) -> str | None:
        """Id of the experiment of that name, if there is one."""
        found = self._experiments.experiment_service_list_experiments(
            filter=self._named(name), namespace=self.connection.namespace, page_size=_PAGE_SIZE
        ).experiments
        return found[0].experiment_id if found else None

    def experiment(self, name: str) -> str:
        """Id of the experiment of that name, which is created if there is none."""
        found = self.find_experiment(name)
        if found:
            return found
        experiment = api.V2beta1Experiment(display_name=name, namespace=self.connection.namespace or None)
        return self._experiments.experiment_service_create_experiment(experiment).experiment_id

    def create_run(self, run: api.V2beta1Run) -> api.V2beta1Run:
        """Starts a run. The request is sent once: without an answer, the run may have started nevertheless."""
        return self._runs.run_service_create_run(run)

    def get_run(self, run_id: str) -> api.V2beta1Run:
        """A run with its present state."""
        return self._runs.run_service_get_run(run_id)

    def create_recurring_run(self, recurring_run: api.V2beta1RecurringRun) -> api.V2beta1RecurringRun:
        """Creates a recurring run. The request is sent once."""
        return self._recurring_runs.recurring_run_service_create_recurring_run(recurring_run)

    def recurring_runs(self, experiment_id: str | None, name: str | None) -> list[api.V2beta1RecurringRun]:
        """Recurring runs, oldest first: all of the namespace, or those of an experiment, or those of a name."""
        query = {"experiment_id": experiment_id} if experiment_id else {"namespace": self.connection.namespace}
        if name is not None:
            query["filter"] = self._named(name)
        token, found = "", list[api.V2beta1RecurringRun]()
        while True:
            page = self._recurring_runs.recurring_run_service_list_recurring_runs(
                page_token=token, page_size=_PAGE_SIZE, sort_by="created_at", **query
            )
            found += page.recurring_runs or []
            token = page.next_page_token
            if not token:
                return found

    def enable(self, recurring_run_id: str) -> None:
        """Lets a recurring run start runs."""
        self._recurring_runs.recurring_run_service_enable_recurring_run(recurring_run_id)

    def disable(self, recurring_run_id: str) -> None:
        """Stops a recurring run from starting more runs; active ones continue."""
        self._recurring_runs.recurring_run_service_disable_recurring_run(recurring_run_id)

    def delete(self, recurring_run_id: str) -> None:
        """Deletes a recurring run, if it still exists; its runs are kept."""
        try:
            self._recurring_runs.recurring_run_service_delete_recurring_run(recurring_run_id)
        except NotFound:
            return

    def _named(self, name: str) -> str:
        """The filter for objects of that name. The server decodes it once more than the URL (kubeflow/pipelines
        `backend/src/apiserver/server/list_request_util.go`, `parseAPIFilter`), hence the quoting.
        """
        predicate = api.V2beta1Predicate(
            operation=api.V2beta1PredicateOperation.EQUALS, key="display_name", string_value=name
        )
        return quote(json.dumps(self._to_json(api.V2beta1Filter(predicates=[predicate]))))
