"""Capacity plans follow from rates by arithmetic that a reader can repeat, and rates are measured or read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index_store.reader import IndexReader
from retrieval.errors import UsageError
from retrieval.indexing.capacity.demand import Demand
from retrieval.indexing.capacity.measuring import measure_rates
from retrieval.indexing.capacity.plan import plan_capacity, replicas_for, search_seconds, stage_seconds
from retrieval.indexing.capacity.rates import Rates, read_rates
from tests.indexing.builds import build
from tests.support.commands import failed, run_here
from tests.support.sample_index import RUN
from tests.support.stub_models import load_tiny

RATES = Rates(
    model="m",
    device="cuda",
    image_bytes=500_000,
    decode_seconds=0.05,
    compute_seconds=0.01,
    write_seconds=0.001,
    tensor_bytes=650_000,
    vector_bytes=2000,
    beside_bytes=300,
    query_bytes=4e6,
    encode_seconds=0.02,
    scan_seconds=0.1,
    score_seconds=1e-4,
    candidate_bytes=650_000,
    commit_seconds=0.02,
    commit_segment_seconds=6e-5,
)
DEMAND = Demand(images=10**7, devices=8, queries_per_second=50, device_hour=3.0, tb_month=20.0)


def test_the_slowest_stage_sets_the_pace() -> None:
    plan = plan_capacity(DEMAND, RATES)
    assert plan.limit == "compute"
    assert plan.build_seconds == pytest.approx(10**7 * 0.01 / 8 + RATES.startup_seconds)
    stages = {stage.name: stage for stage in plan.stages}
    assert stages["decode"].seconds == pytest.approx(10**7 * 0.05 / 128)
    assert stages["upload"].storage_bytes == pytest.approx(10**7 * 652_300)
    assert stages["compute"].cost == pytest.approx(3.0 * 8 * plan.build_seconds / 3600)
    assert stages["upload"].cost == pytest.approx(20.0 * 6.523)
    segments = -(-(10**7) // 1024)
    assert stages["commit"].seconds == pytest.approx((0.02 + 6e-5) * segments)


def test_the_next_limit_is_where_another_stage_takes_over() -> None:
    plan = plan_capacity(DEMAND, RATES)
    assert plan.next_limit_at > DEMAND.devices

    def limit(devices: int) -> str:
        return plan_capacity(replace(DEMAND, devices=devices), RATES).limit

    assert limit(plan.next_limit_at - 1) == plan.limit
    assert limit(plan.next_limit_at) == plan.next_limit != plan.limit


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"decode_seconds": 1.0}, "decode"),
        ({"image_bytes": 1e9}, "read"),
        ({"commit_seconds": 60.0}, "commit"),
        ({"tensor_bytes": 1e9}, "upload"),
        ({"write_seconds": 5.0}, "write"),
    ],
)
def test_every_stage_may_be_the_limit(change: dict[str, float], limit: str) -> None:
    assert plan_capacity(DEMAND, replace(RATES, **change)).limit == limit


def test_more_devices_shorten_what_they_share_and_nothing_else() -> None:
    few, many = stage_seconds(DEMAND, RATES), stage_seconds(replace(DEMAND, devices=16), RATES)
    for name in ("decode", "compute", "write"):
        assert many[name] == pytest.approx(few[name] / 2)
    for name in ("list", "commit"):
        assert many[name] == few[name]


def test_replicas_follow_from_work_and_from_memory() -> None:
    replicas, why = replicas_for(DEMAND, RATES)
    assert why == "work"
    twice, _ = replicas_for(replace(DEMAND, queries_per_second=100), RATES)
    assert replicas <= twice <= 2 * replicas
    assert search_seconds(DEMAND, RATES, 2 * replicas) < search_seconds(DEMAND, RATES, replicas)
    assert replicas_for(replace(DEMAND, queries_per_second=0.01, memory=1e9), RATES) == (31, "memory")


def test_small_indexes_are_scanned_whole_and_train_nothing() -> None:
    plan = plan_capacity(Demand(images=10_000), RATES)
    assert next(stage for stage in plan.stages if stage.name == "train").seconds == 0


def test_rates_are_read_back_from_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_capacity(DEMAND, RATES).to_dict()))
    assert Rates.from_json(read_rates(path)) == RATES


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"decode": 1}', "unknown rates decode; known: model"),
        ('{"decode_seconds": -1}', "decode_seconds must be a number"),
        ('{"decode_seconds": "x"}', "decode_seconds must be a number"),
        ('{"model": 3}', "model must be a text"),
        ("[]", "no object of rates"),
        ("{", "can't be read"),
    ],
)
def test_rates_that_make_no_sense_are_refused(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(UsageError, match=word):
        read_rates(tmp_path / "rates.json")


def test_missing_rates_are_named() -> None:
    with pytest.raises(UsageError, match="rates are missing: model, device"):
        Rates.from_json({"image_bytes": 1})


@pytest.mark.usefixtures("tiny")
def test_measured_rates_state_the_bytes_of_an_index(photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SECONDS", 0.0), ("SCANNED", 500), ("RECORDS", 20)):
        monkeypatch.setattr(f"retrieval.indexing.capacity.measuring.{name}", value)
    rates = measure_rates([photos], ["style"], RUN, load_tiny, model="cells", codec="qkv-float16")
    build(photos, index, modes=["style"])
    stored = IndexReader(index).attention("style", range(11))
    assert rates.tensor_bytes * 11 == 2 * sum(array.size for array in stored.values())
    times = {name: value for name, value in rates.to_json().items() if name.endswith("_seconds")}
    assert all(value > 0 for name, value in times.items() if name != "commit_segment_seconds"), times


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text(json.dumps(RATES.to_json()))
    asked = ["plan", "--images", "10M", "--gpus", "8", "--rates", "rates.json", "--gpu-hour", "3"]
    table = run_here("diffsim-index", *asked, cwd=tmp_path)
    assert "compute sets the pace" in table.stdout.decode()
    found: dict[str, Any] = json.loads(run_here("diffsim-index", *asked, "--json", cwd=tmp_path).stdout)
    assert found["demand"]["images"] == 10**7
    assert found["rates"] == RATES.to_json()
    assert "10M" in failed(run_here("diffsim-index", "plan", "--images", "many", cwd=tmp_path), 2)
