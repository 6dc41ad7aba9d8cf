"""The released file of mini is read without torch's unpickler, to the same tensors, and can run nothing."""

import io
import pickle
from pathlib import Path

import pytest
import torch

from retrieval.errors import ModelError
from retrieval.models.mini.network import read_network
from retrieval.models.mini.released import read_released
from retrieval.models.mini.weights import find_weights
from tests.slices import loads_model_libraries

pytestmark = loads_model_libraries


def saved(path: Path, state: object) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def test_tensors_are_those_of_torch() -> None:
    found, expected = read_released(find_weights()), torch.load(find_weights(), weights_only=True)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride()), name


def test_views_of_one_storage_are_read(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    state = {"part": whole[4:10].view(2, 3), "turned": whole[:6].view(2, 3).T, "count": torch.tensor(7)}
    found = read_released(saved(tmp_path / "x.pth", state))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return print, ("run",)


@pytest.mark.parametrize("place", range(5))
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, place: int, capsys: pytest.CaptureFixture[str]) -> None:
    data = find_weights().read_bytes()[: 1 << 20]
    file, ends = io.BytesIO(data), [0]
    for _ in range(place):
        for _operation in pickle_operations(file):
            pass
        ends.append(file.tell())
    path = tmp_path / "x.pth"
    path.write_bytes(data[: ends[-1]] + pickle.dumps(Evil()) + data[ends[-1] :])
    with pytest.raises(ModelError, match=r"builtins\.print, which no weights need"):
        read_network(path, torch.device("cpu"))
    assert capsys.readouterr().out == ""


def pickle_operations(file: io.BytesIO) -> object:
    import pickletools

    return pickletools.genops(file)


@pytest.mark.parametrize("length", [0, 30, 5_000, 200_000, -1])
def test_a_truncated_file_is_one_error(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(find_weights().read_bytes()[:length])
    with pytest.raises(ModelError, match="can't be read"):
        read_network(path, torch.device("cpu"))
