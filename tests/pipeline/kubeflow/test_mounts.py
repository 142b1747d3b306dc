"""URIs and the folders in which the launcher mirrors them."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ConfigError
from pipeline.kubeflow.mounts import FOLDERS, Mounts

SEGMENT = st.text(st.characters(exclude_characters="/", codec="utf-8"), min_size=1).filter(lambda s: s != "..")
KEYS = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)
ROOTS = st.sampled_from(["/", "/tmp/a", "/tmp/a/"])


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/root/x", "/gcs/bucket/root/x"),
        ("s3://bucket/root/x", "/s3/bucket/root/x"),
        ("minio://bucket/root/x", "/minio/bucket/root/x"),
        ("minio://bucket", "/minio/bucket"),
    ],
)
def test_paths_are_those_of_the_launcher(uri: str, path: str):
    assert Mounts().path(uri) == path
    assert Mounts("/there/").path(uri) == "/there" + path


@given(root=ROOTS, scheme=st.sampled_from(sorted(FOLDERS)), key=KEYS)
def test_a_path_leads_back_to_its_uri_and_stays_below_the_root(root: str, scheme: str, key: str):
    mounts = Mounts(root)
    path = mounts.path(f"{scheme}://{key}")

    assert mounts.uri(path) == f"{scheme}://{key}"
    assert posixpath.normpath(path).startswith(posixpath.join(root, FOLDERS[scheme]))


@given(text=st.text())
def test_text_that_is_no_mounted_path_stays_as_it_is(text: str):
    assert Mounts("/mounts").uri(text) == text


def test_a_path_below_an_artifact_becomes_a_uri():
    assert Mounts("/m").uri("/m/s3/b/model/Format-Serving") == "s3://b/model/Format-Serving"
    assert Mounts("/m").uri("/m/s3-other/b") == "/m/s3-other/b"


@pytest.mark.parametrize("uri", ["/local/folder", "oci://image", "file:///x", "bucket/key", ""])
def test_other_schemes_are_refused_with_the_known_ones(uri: str):
    with pytest.raises(ConfigError, match="gs://, s3://, minio://") as caught:
        Mounts().path(uri)
    assert repr(uri) in str(caught.value)


@pytest.mark.parametrize("uri", ["minio://", "s3:///key", "s3://bucket/../other", "gs://.."])
def test_a_uri_that_leads_out_of_its_bucket_is_refused(uri: str):
    with pytest.raises(ConfigError, match="BUCKET/KEY without '..'"):
        Mounts().path(uri)
