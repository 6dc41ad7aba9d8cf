"""Settings of an index from somebody else are values of the right types, or one error."""

from typing import Any, get_type_hints

import pytest

from retrieval.encoding.fingerprint import check_shape
from retrieval.models.modes import Target
from retrieval.settings import ModelSettings

WRONG: tuple[Any, ...] = ([], {"a": {}}, True, 1.5, [[]])


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("name", get_type_hints(ModelSettings))
def test_a_setting_of_another_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} makes no sense"):
        ModelSettings.from_json({**ModelSettings().to_json(), name: value})


def test_own_settings_are_read() -> None:
    own = ModelSettings(encoders={"clip": None, "dinov2": "/x"}, codec="hidden-int8", image_size=64, noise="shared")
    assert ModelSettings.from_json(own.to_json()) == own
    assert ModelSettings.from_json({**own.to_json(), "of a newer version": []}) == own


@pytest.mark.parametrize(("name", "value"), [("timestep", ""), ("timestep", True), ("layer", 5), ("layer", [])])
def test_a_target_of_other_types_is_refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match="no name, or a timestep no number"):
        Target.from_json({"layer": "U_0", "timestep": 900, name: value})


OWN = {
    "model": {"name": "cells"},
    "pixels": {"probe": "x"},
    "modes": {"style": {"layer": "U_0"}},
    "encoders": {"descriptor": {}},
    "codec": "hidden-float16",
}


def test_the_shape_of_a_fingerprint_is_known() -> None:
    check_shape(OWN)
    check_shape({**OWN, "encoders": {}, "of a newer version": 5})


@pytest.mark.parametrize("value", [0.5, None, "encoders", [], True], ids=repr)
@pytest.mark.parametrize("part", OWN)
def test_a_part_of_a_fingerprint_of_another_type_is_refused(part: str, value: Any) -> None:
    if part == "codec" and isinstance(value, str):
        return
    with pytest.raises(TypeError, match=f"fingerprint.{part} is not"):
        check_shape({**OWN, part: value})
    with pytest.raises(KeyError, match=part):
        check_shape({name: each for name, each in OWN.items() if name != part})


@pytest.mark.parametrize("part", ["modes", "encoders"])
def test_what_a_fingerprint_says_of_a_name_is_an_object(part: str) -> None:
    with pytest.raises(TypeError, match=f"fingerprint.{part}.one is not an object"):
        check_shape({**OWN, part: {"one": 0.5}})
