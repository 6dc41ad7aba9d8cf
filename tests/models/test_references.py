"""Names of repositories and folders."""

from pathlib import Path

import pytest

from retrieval.errors import UsageError
from retrieval.models.references import parse_reference
from retrieval.models.registry import describe_embedder, describe_extractor

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "name",
    [
        "hf:facebook/dinov2-small",
        f"hf:facebook/dinov2-small@{COMMIT}",
        "hf:a/b@refs/pr/1",
        "hf-aas:google/vit_base.v2@main#3",
        "hf-aas:model#0",
    ],
)
def test_a_name_is_read_and_written_alike(name: str) -> None:
    found = parse_reference(name)
    assert found is not None
    assert str(found) == name
    describe = describe_extractor if name.startswith("hf-aas:") else describe_embedder
    assert describe(name).name == name


def test_a_place_that_begins_like_a_path_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("./my model@2#1", f"{tmp_path}/my model@2#1"):
        found = parse_reference(f"hf-aas:{text}")
        assert found is not None
        assert found.folder == tmp_path / "my model@2"
        assert (found.repo, found.layer, str(found)) == ("my-model-2", "1", "hf-aas:my-model-2#1")
        assert describe_extractor(found.place).modes["semantic"].encoders == ("hf:my-model-2",)


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:a b/c", "hf:a/b@", "hf-aas:a/b#", "hf:a/b#1"])
def test_anything_else_is_an_error_that_shows_how_to_write_it(name: str) -> None:
    with pytest.raises(UsageError, match=r"names no repository; write hf(-aas)?:OWNER/NAME, "):
        parse_reference(name)


def test_other_names_are_no_references() -> None:
    assert parse_reference("clip") is None
    with pytest.raises(UsageError, match=r"unknown encoder 'hf-aas:a/b'; known: clip, .*hf:OWNER/NAME, or none"):
        describe_embedder("hf-aas:a/b")
    with pytest.raises(UsageError, match=r"unknown model 'hf:a/b'; known: auto, .*hf-aas:OWNER/NAME"):
        describe_extractor("hf:a/b")
    with pytest.raises(UsageError, match="unknown encoder 'clip@"):
        describe_embedder(f"clip@{COMMIT}")
    assert describe_embedder(f"csd@{COMMIT}").revision == COMMIT
