"""Settings of an index from somebody else are values of the right types, or one error."""

from typing import Any, get_type_hints

import pytest

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
