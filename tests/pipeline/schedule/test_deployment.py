import configparser
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from data.errors import TEMPORARY

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "deploy" / "systemd" / "deeplab-schedule.service"
CRONJOB = ROOT / "deploy" / "kubernetes" / "cronjob.yaml"
MANIFESTS = list(yaml.safe_load_all(CRONJOB.read_text()))


@pytest.mark.platform("systemd-analyze is a part of Linux distributions with systemd")
def test_systemd_takes_the_unit(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "python"  # The unit's own is where the project is installed.
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/deeplab/.venv/bin/python", str(program)))

    command = ["systemd-analyze", "verify", "--recursive-errors=one", "--man=no", str(copy)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_kubernetes_takes_the_manifest(manifest: dict[str, Any]):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_a_unit_that_fails_at_once_is_given_up():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    limits, minutes = unit["Unit"], unit["Unit"]["StartLimitIntervalSec"].removesuffix("min")

    assert int(limits["StartLimitBurst"]) * unit["Service"].getint("RestartSec") < 60 * int(minutes)


def test_what_the_manifest_takes_for_there_is_told_of_in_its_head():
    head = [line for line in CRONJOB.read_text().splitlines() if line.startswith("#")]
    claims = {manifest["metadata"]["name"] for manifest in MANIFESTS if manifest["kind"] == "PersistentVolumeClaim"}
    job = next(manifest for manifest in MANIFESTS if manifest["kind"] == "CronJob")["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    claimed = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    maps = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}

    for name in (claimed - claims) | maps | {pod["containers"][0]["image"]}:
        assert any(name in line for line in head), name


def test_a_run_that_the_schedule_gave_up_is_not_begun_again_and_a_lost_pod_is():
    job = next(manifest for manifest in MANIFESTS if manifest["kind"] == "CronJob")["spec"]["jobTemplate"]["spec"]
    first, second = job["podFailurePolicy"]["rules"]

    assert (first["action"], first["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (second["action"], second["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert second["onExitCodes"]["values"] == [1, 2, TEMPORARY]


def arguments() -> dict[str, list[str]]:
    """What the unit and the manifest give to `local_runner.py`."""
    unit = UNIT.read_text().replace("\\\n", "").split("local_runner.py", 1)[1].split("\n", 1)[0]
    job = next(manifest for manifest in MANIFESTS if manifest["kind"] == "CronJob")
    container = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    return {"unit": unit.split(), "manifest": [*container["command"][2:], *container["args"]]}


@pytest.mark.parametrize("file", arguments())
def test_the_options_exist(file: str):
    from typer.main import get_command

    from local_runner import app

    schedule = get_command(app).commands["schedule"]
    known = {name for parameter in schedule.params for name in parameter.opts}

    given = arguments()[file]
    assert given[0] == "schedule"
    assert {word for word in given if word.startswith("--")} <= known
