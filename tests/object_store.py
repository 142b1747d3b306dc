"""An object store on this machine: moto's server speaks S3 and keeps everything in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def object_store() -> Iterator[str]:
    """Runs a server; what looks for credentials in the environment finds those for it. Gives its address."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://{host}:{port}"
    moto.stop()


def make_bucket(test: str) -> str:
    """An empty bucket for a test, as a URI."""
    name = "".join(letter for letter in test.lower() if letter.isalnum())[-40:]
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


def put(uri: str, content: bytes) -> None:
    """Writes an object."""
    name, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=name, Key=key, Body=content)
