import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import kfp_server_api as api
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.kubeflow import client
from pipeline.kubeflow.client import (
    TOKEN_VARIABLE,
    Connection,
    NotFound,
    Server,
    ServerError,
    ServerRefused,
    ServerUnavailable,
    connect,
)
from tests.pipeline.kubeflow import kfp_server

SECRET = "t0p.5ecret-token_value"


@pytest.fixture
def kfp() -> Iterator[kfp_server.Server]:
    with kfp_server.running() as server:
        yield server


@pytest.fixture(autouse=True)
def no_token_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def server_of(kfp: kfp_server.Server, **settings: object) -> Server:
    return Server(Connection(kfp.url, **{"attempts": 2, "pause": 0.001, **settings}))


def test_an_experiment_is_made_once(kfp: kfp_server.Server):
    server = server_of(kfp)

    assert server.find_experiment("nightly") is None
    made = server.experiment("nightly")

    assert server.experiment("nightly") == made == server.find_experiment("nightly")
    assert [each.display_name for each in kfp.state.experiments] == ["nightly"]


@settings(max_examples=25)
@given(name=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=20))
def test_a_name_is_found_whatever_it_holds(name: str):
    with kfp_server.running() as kfp:
        server = server_of(kfp)

        assert server.experiment(name) == server.experiment(name)
        assert server.find_experiment(name + "x") is None


def test_the_namespace_goes_with_experiments(kfp: kfp_server.Server):
    kfp.state.multi_user = True

    server_of(kfp, namespace="anna").experiment("nightly")

    assert kfp.state.experiments[0].namespace == "anna"
    assert server_of(kfp, namespace="bob").find_experiment("nightly") is None
    with pytest.raises(ServerRefused, match="400 .*empty namespace in multi-user mode"):
        server_of(kfp).experiment("nightly")


def test_without_a_token_none_is_sent(kfp: kfp_server.Server):
    server_of(kfp).find_experiment("nightly")

    assert kfp.state.tokens == [None]


def test_a_token_of_the_environment_is_sent(kfp: kfp_server.Server, monkeypatch: pytest.MonkeyPatch):
    kfp.state.token = SECRET
    monkeypatch.setenv(TOKEN_VARIABLE, f"{SECRET}\n")

    connect(kfp.url).find_experiment("nightly")

    assert kfp.state.tokens == [f"Bearer {SECRET}"]


def test_a_token_file_is_read_for_each_request(kfp: kfp_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "another")
    file = tmp_path / "token"
    file.write_text("first\n")
    server = connect(kfp.url, token_file=file)

    server.find_experiment("nightly")
    file.write_text("second\n")
    server.find_experiment("nightly")

    assert kfp.state.tokens == ["Bearer first", "Bearer second"]


def test_in_a_pod_the_service_accounts_token_is_sent(
    kfp: kfp_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "projected"
    file.write_text(SECRET)
    monkeypatch.setattr(client, "SERVICE_ACCOUNT_TOKEN", file)

    connect(kfp.url, in_cluster=True).find_experiment("nightly")

    assert kfp.state.tokens == [f"Bearer {SECRET}"]


def test_outside_a_pod_the_service_accounts_token_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "SERVICE_ACCOUNT_TOKEN", tmp_path / "none")

    with pytest.raises(ConfigError, match="none: the token cannot be read: No such file"):
        connect("http://kfp", in_cluster=True)


def test_two_places_for_the_token_are_one_too_many(tmp_path: Path):
    with pytest.raises(ConfigError, match="--in-cluster and --token-file"):
        connect("http://kfp", in_cluster=True, token_file=tmp_path / "token")


@pytest.mark.parametrize("token", [f"{SECRET}\nX-Other: 1", f"{SECRET} more", f"{SECRET}é", ""])
def test_what_is_no_token_is_refused_without_being_shown(token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(ConfigError, match="token: contains no token; allowed: one line") as raised:
        connect("http://kfp", token_file=file)
    assert SECRET not in str(raised.value)

    if token:
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        with pytest.raises(ConfigError, match="DEEPLAB_KFP_TOKEN: contains no token") as raised:
            connect("http://kfp")
        assert SECRET not in str(raised.value)


def test_a_missing_or_wrong_token_says_what_to_do(kfp: kfp_server.Server):
    kfp.state.token = SECRET

    for token in ("", "wrong"):
        with pytest.raises(ServerRefused, match="401 .*no user identity(.|\n)*DEEPLAB_KFP_TOKEN.*--token-file"):
            server_of(kfp, token=token).find_experiment("nightly")
    assert len(kfp.state.requests) == 2  # neither was tried again


def test_the_token_shows_nowhere(
    kfp: kfp_server.Server, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    connection = Connection(kfp.url, token=SECRET, attempts=1)
    server = Server(connection)
    kfp.state.token = f"not-{SECRET}"
    with pytest.raises(ServerError) as refused:
        server.find_experiment(f"nightly {SECRET}")
    kfp.state.fail("cut")
    with pytest.raises(ServerError) as broken:
        server.find_experiment("nightly")

    assert kfp.state.tokens == [f"Bearer {SECRET}"] * 2
    for text in (repr(connection), repr(server), str(refused.value), str(broken.value), *capsys.readouterr()):
        assert SECRET not in text
    assert not [record for record in caplog.records if "Bearer" in record.getMessage()]


def test_a_server_that_repeats_the_token_does_not_get_it_printed(kfp: kfp_server.Server):
    class Echo(kfp_server.Rules):
        def answer(self, *call: object) -> kfp_server.Answer:
            raise kfp_server.Refused(400, f"bad header Bearer {SECRET}")

    original, kfp_server.Rules = kfp_server.Rules, Echo
    try:
        with pytest.raises(ServerRefused, match=r"bad header Bearer \*\*\*"):
            server_of(kfp, token=SECRET).find_experiment("nightly")
    finally:
        kfp_server.Rules = original


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("kubeflow.example", "is not an address; allowed: http"),
        ("ftp://kubeflow.example", "is not an address"),
        ("http://", "is not an address"),
        ("http://kfp:99999", "is not an address"),
        ("http://[kfp", "is not an address"),
        ("https://kfp/pipeline?x=1", "has a query or a fragment"),
        ("https://kfp/#/runs", "has a query or a fragment"),
    ],
)
def test_what_is_no_address_is_refused(host: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint) as raised:
        connect(host)

    assert host in str(raised.value)


def test_a_password_in_the_address_is_refused_without_being_shown():
    with pytest.raises(ConfigError, match="holds a user name or a password") as raised:
        connect(f"https://anna:{SECRET}@kfp")

    assert SECRET not in str(raised.value)


def test_a_missing_file_of_certificates_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none.pem: no such file; allowed: a PEM file"):
        connect("https://kfp", ca_file=tmp_path / "none.pem")


def test_pages_lie_below_a_proxys_path():
    assert Connection("https://kfp/pipeline/").link("runs", "1") == "https://kfp/pipeline/#/runs/details/1"


def test_a_server_that_is_not_there_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # taken, but nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        with pytest.raises(ServerUnavailable, match=f"GET {url}/.*: the server cannot be reached: .*refused"):
            Server(Connection(url, attempts=2, pause=0.001)).find_experiment("nightly")


def test_a_name_that_no_one_knows_is_an_unreached_server():
    with pytest.raises(ServerUnavailable, match=r"GET http://kfp\.invalid/.*: the server cannot be reached"):
        Server(Connection("http://kfp.invalid", attempts=1)).find_experiment("nightly")


def test_a_server_that_does_not_answer_is_left(kfp: kfp_server.Server):
    kfp.state.fail("hang")

    with pytest.raises(ServerUnavailable, match="no answer within 0.2 s"):
        server_of(kfp, timeout=0.2).find_experiment("nightly")
    assert len(kfp.state.requests) == 2


def test_an_unencrypted_port_is_no_secure_server(kfp: kfp_server.Server):
    with pytest.raises(ServerRefused, match="no secure connection.*--ca-file"):
        Server(Connection(kfp.url.replace("http:", "https:"), attempts=1)).find_experiment("nightly")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, and its key in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    unlocked = serialization.NoEncryption()
    file = tmp_path / "certificate.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unlocked) + signed.public_bytes(pem))
    return file


def test_a_private_authority_is_trusted_once_it_is_named(kfp: kfp_server.Server, certificate: Path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    kfp.socket = context.wrap_socket(kfp.socket, server_side=True)
    url = kfp.url.replace("http:", "https:")

    with pytest.raises(ServerRefused, match="no secure connection: .*self-signed.*--ca-file"):
        connect(url).find_experiment("nightly")
    assert connect(url, ca_file=certificate).find_experiment("nightly") is None


@pytest.mark.parametrize("kind", ["error", "lost", "cut"])
def test_what_may_be_repeated_is(kfp: kfp_server.Server, kind: str):
    server = server_of(kfp)
    experiment = server.experiment("nightly")
    kfp.state.fail(kind, nth=1, times=1)

    assert server.find_experiment("nightly") == experiment


@pytest.mark.parametrize("kind", ["error", "lost", "cut"])
def test_a_run_is_never_started_twice(kfp: kfp_server.Server, kind: str):
    server = server_of(kfp)
    spec = {"schemaVersion": "2.1.0", "root": {}}
    run = api.V2beta1Run(
        experiment_id=server.experiment("nightly"),
        display_name="a run",
        pipeline_spec=spec,
        runtime_config=api.V2beta1RuntimeConfig(),
    )
    kfp.state.fail(kind, nth=1, times=1)

    with pytest.raises(ServerUnavailable):
        server.create_run(run)
    assert len(kfp.state.runs) == (0 if kind == "error" else 1)


def test_what_is_gone_counts_as_deleted(kfp: kfp_server.Server):
    server_of(kfp).delete("schedule-9")

    with pytest.raises(NotFound, match=r"404 Job schedule-9 not found\."):
        server_of(kfp).enable("schedule-9")


def test_the_servers_sentence_for_users_is_shown(kfp: kfp_server.Server):
    with pytest.raises(NotFound) as raised:
        server_of(kfp).get_run("run-9")

    assert str(raised.value) == f"GET {kfp.url}/apis/v2beta1/runs/run-9: 404 Run run-9 not found."


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("html", "the answer is not one of Kubeflow Pipelines, perhaps a login page"),
        ("redirect", "302 Found, redirected to https://login.example/auth\n.*DEEPLAB_KFP_TOKEN"),
        ("plain", "403 Forbidden"),
    ],
)
def test_what_stands_before_the_server_is_told_apart(kfp: kfp_server.Server, kind: str, complaint: str):
    kfp.state.fail(kind)

    with pytest.raises(ServerRefused, match=complaint) as raised:
        server_of(kfp).experiment("nightly")
    assert "5ecret" not in str(raised.value)


def test_lists_go_on_over_pages(kfp: kfp_server.Server):
    server = server_of(kfp)
    experiment = server.experiment("nightly")
    kfp.state.page_size = 2
    for number in range(5):
        kfp.state.recurring.append(
            api.V2beta1RecurringRun(
                recurring_run_id=str(number),
                display_name="even" if number % 2 == 0 else "odd",
                experiment_id=experiment,
            )
        )

    assert [each.recurring_run_id for each in server.recurring_runs(experiment, None)] == list("01234")
    assert [each.recurring_run_id for each in server.recurring_runs(experiment, "even")] == list("024")
    assert [each.recurring_run_id for each in server.recurring_runs(None, "odd")] == list("13")


def test_the_sdk_is_imported_without_its_heavy_half():
    code = "import sys, pipeline.kubeflow.client; print('kfp' in sys.modules, 'tensorflow' in sys.modules)"

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )

    assert result.stdout.split() == ["False", "False"]
