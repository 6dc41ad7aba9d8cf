"""Opening a store sends nothing, and needs no endpoint where AWS itself is meant."""

import pytest

from index_store.errors import RemoteStoreError, UsageError
from index_store.remote.object_store import configured_endpoint, open_store, parse_url


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9", "https://objects.example.org"])
def test_a_store_is_opened_at_aws_or_elsewhere(endpoint: str | None) -> None:
    store = open_store("s3://bucket/a.diffsim", endpoint)
    assert store.where("CURRENT") == "s3://bucket/a.diffsim/CURRENT"
    assert open_store("s3://bucket/a.diffsim", endpoint) is not store, "whoever opens a store owns it"


def test_settings_that_make_no_sense_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "perhaps")
    with pytest.raises(RemoteStoreError, match=r"bucket/a can't be opened \(.*perhaps.* as boolean\); check the AWS_"):
        open_store("s3://bucket/a", None)


def test_the_environment_names_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert configured_endpoint() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://a")
    assert configured_endpoint() == "http://a"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://b")
    assert configured_endpoint() == "http://b"


@pytest.mark.parametrize("text", ["s3://bucket", "s3:///a", "s3://", "gs://bucket/a", "s3:///bucket/a"])
def test_other_urls_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="s3://BUCKET/NAME"):
        parse_url(text)
