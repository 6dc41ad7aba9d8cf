"""``kill -9``: what was committed stays, nothing is half there, and the next build gives the undisturbed index."""

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kill.additions import ADDITION_IMAGES, ADDITION_KILLS
from tests.support.kill.harness import IMAGES, KILLS
from tests.support.kill.looks import SEGMENT
from tests.support.kill.operations import STEP
from tests.support.paths import ROOT

TIMEOUT = 600  # seconds

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and reads /proc"),
    pytest.mark.xdist_group("kill"),
    pytest.mark.timeout(TIMEOUT + 60),
]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Run a scenario of tests/support/kill/harness.py; its process is started once."""
    command = [sys.executable, "-m", "tests.support.kill.harness", str(tmp_path_factory.mktemp("kill"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as harness:
        assert harness.stdin is not None
        assert harness.stdout is not None
        stdin, stdout = harness.stdin, harness.stdout

        def run(name: str) -> dict[str, Any]:
            print(name, file=stdin, flush=True)
            if not select.select([stdout], [], [], TIMEOUT)[0]:
                harness.kill()
            answer = stdout.readline()
            assert answer, f"the harness failed, see its traceback on stderr; or it took longer than {TIMEOUT} s"
            found: dict[str, Any] = json.loads(answer)
            return found

        yield run
        stdin.close()


def test_builds_killed_at_random_moments_lose_one_segment_at_most(scenario: Callable[[str], dict[str, Any]]) -> None:
    found = scenario("random")
    kills = found["kills"]
    assert len(kills) == KILLS
    for kill in kills:
        before, after = kill["before"], kill["after"]
        assert after["differences"] == [], "what is there is the undisturbed index's beginning, bit by bit"
        assert after["items"] >= before["items"]
        assert after["items"] % SEGMENT == 0 or after["items"] == IMAGES
        assert kill["computed"] - (after["items"] - before["items"]) <= SEGMENT
    assert sum(kill["computed"] for kill in kills) > IMAGES, "the kills hit builds at work"
    assert any(0 < kill["after"]["items"] < IMAGES for kill in kills), "some when a part was there"
    for index in found["finished"]:
        assert index == {"segments": 8, "items": IMAGES, "differences": [], "searches": [IMAGES] * 3}


@pytest.mark.thorough
def test_additions_and_fills_killed_at_random_moments_lose_one_segment_at_most(
    scenario: Callable[[str], dict[str, Any]],
) -> None:
    found = scenario("additions")
    kills = found["kills"]
    assert len(kills) >= ADDITION_KILLS
    for kill in kills:
        before, after = kill["before"], kill["after"]
        assert after["wrong"] == before["wrong"] == 0, "what is there is the undisturbed index's, bit by bit"
        assert after["held"]["style"] >= before["held"]["style"]
        gained = after["held"].get("instance", 0) - before["held"].get("instance", 0)
        assert gained >= 0
        assert kill["computed"] - gained <= SEGMENT
    assert sum(kill["computed"] for kill in kills) > ADDITION_IMAGES, "the kills hit additions at work"
    assert {kill["kind"] for kill in kills} == {"add", "fill"}
    assert any(0 < kill["after"]["held"].get("instance", 0) < ADDITION_IMAGES for kill in kills), "some on the way"
    for index in found["finished"]:
        assert index["wrong"] == 0
        assert index["held"] == dict.fromkeys(("style", "instance", "descriptor", "subject"), ADDITION_IMAGES)


@pytest.mark.thorough
def test_a_build_killed_at_any_flush_or_replacement_is_in_the_old_or_the_new_state(
    scenario: Callable[[str], dict[str, Any]],
) -> None:
    found = scenario("operations")
    assert found["operations"] > 30
    assert [kill["at"] for kill in found["kept"]] == list(range(1, found["operations"] + 1, STEP))
    for kill in found["kept"]:
        number = kill["at"]
        assert kill["kept"]["differences"] == [], f"killed at operation {number}"
        assert kill["kept"]["segments"] - kill["commits"] in (0, 1)
        assert kill["resumed"] == {"segments": 2, "items": 3, "differences": []}, f"killed at operation {number}"
    assert set(Counter(kill["kept"]["segments"] for kill in found["kept"])) == {0, 1, 2}
    assert any(kill["kept"]["segments"] > kill["commits"] for kill in found["kept"]), "some hit just after a commit"


@pytest.mark.slow
def test_no_writer_loses_anything_whenever_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.kill_table", str(tmp_path / "kill"), "--kills", "24"]
    table = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row[0] for row in rows] == ["build", "update", "compact", "fill", "repair"]
    for kind, kills, at_work, *harm, opened in rows:
        assert harm == ["0"] * 4, kind
        assert opened == kills == "5"
        assert int(at_work) > 0
