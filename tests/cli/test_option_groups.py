"""Groups of options: a command's own parameters and those of its groups, and the settings they become."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from cli.eval.option_groups import MetricOptions
from cli.index.model_options import ModelOptions, RunOptions
from cli.option_groups import EngineOptions, SearchOptions, expand_groups
from retrieval.metrics.base import MetricSettings
from retrieval.settings import BuildSettings, EngineSettings, ModelSettings, SearchSettings


@dataclass(frozen=True, kw_only=True)
class Colours:
    ink: Annotated[str, typer.Option("--ink")] = "black"
    paper: Annotated[Path | None, typer.Option("--paper")] = None


def test_a_command_takes_the_options_of_its_groups() -> None:
    app, seen = typer.Typer(), []

    @app.command()
    @expand_groups
    def draw(
        what: Annotated[str, typer.Argument()],
        *,
        colours: Colours,
        wide: Annotated[bool, typer.Option("--wide")] = False,
    ) -> None:
        """Draw it."""
        seen.append((what, colours, wide))

    result = CliRunner().invoke(app, ["cat", "--paper", "a/b", "--wide"], catch_exceptions=False)
    assert result.exit_code == 0
    assert seen == [("cat", Colours(ink="black", paper=Path("a/b")), True)]
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "Draw it." in shown
    assert shown.index("--ink") < shown.index("--paper") < shown.index("--wide"), "in the order of the parameters"
    assert CliRunner().invoke(app, ["cat", "--pen", "x"]).exit_code == 2


def names(kind: type) -> set[str]:
    return {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("settings", "group", "elsewhere"),
    [
        (ModelSettings, ModelOptions, set()),
        (BuildSettings, RunOptions, {"attention", "retry_rejects", "rehash", "gone", "pool"}),  # of `build` alone
        (EngineSettings, EngineOptions, {"memory"}),  # follows from the number of queries
        (SearchSettings, SearchOptions, {"rerank", "mode_weights"}),  # --no-rerank; --same and --not name modes
        (MetricSettings, MetricOptions, {"denoising_step", "directions"}),  # --step; no option chooses directions
    ],
)
def test_every_setting_has_an_option(settings: type, group: type, elsewhere: set[str]) -> None:
    assert names(settings) - names(group) == elsewhere


def test_groups_leave_defaults_to_the_library() -> None:
    assert ModelOptions().choices() == {}
    assert RunOptions().settings() == BuildSettings()
    assert EngineOptions().settings(queries=2) == EngineSettings()
    assert SearchSettings(**SearchOptions().choices()) == SearchSettings()
    assert MetricOptions().settings() == MetricSettings()


def test_groups_hand_every_choice_on() -> None:
    model = ModelOptions(weights=Path("w"), encoders="clip,dinov2=d", seed=3, codec="hidden-int8", metric="diffsim-s")
    assert model.choices() == {
        "model": "sd15",
        "weights": "w",
        "encoders": {"clip": None, "dinov2": "d"},
        "seed": 3,
        "codec": "hidden-int8",
    }
    chosen: dict[str, Any] = {"device": "cpu", "offline": True, "batch_size": 2, "workers": 3, "max_pixels": 9}
    chosen |= {"segment_rows": 4, "commit_seconds": 5.0}
    alone: dict[str, Any] = {"attention": "lazy", "retry_rejects": True, "rehash": True, "gone": True, "pool": None}
    assert chosen.keys() | alone.keys() == names(BuildSettings)
    assert RunOptions(**chosen).settings(**alone) == BuildSettings(**chosen, **alone)
    engine = EngineOptions(weights=Path("w"), encoders="clip=c", max_cache="2MB", max_pixels=9)
    assert engine.settings(queries=1) == EngineSettings(
        weights="w", encoders={"clip": "c"}, max_cache=2_000_000, memory=0, max_pixels=9
    )
    assert SearchOptions(no_rerank=True, k=3).choices()["rerank"] is False
    metric = MetricOptions(step=900, masks=Path("m"), weights=["x"], similarity="mse")
    assert metric.settings() == MetricSettings(denoising_step=900, masks="m", similarity="mse")
