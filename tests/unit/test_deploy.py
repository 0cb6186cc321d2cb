"""What is deployed: settings, the systemd unit, the image, the compose file beside Orthanc."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from judges import judge
from packaging.specifiers import SpecifierSet

from rbs.errors import RbsError
from rbs.node.settings import Settings, Tls, read_settings

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
ORTHANC = json.loads((DEPLOY / "orthanc.json").read_text())


def uncommented() -> str:
    """The example with every setting that is commented out."""
    text = (DEPLOY / "node.toml").read_text()
    return re.sub(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)


def test_the_example_can_be_used_as_it_is() -> None:
    settings = read_settings(DEPLOY / "node.toml")
    assert (settings.peers[0].ae_title, settings.destinations[0].name) == ("CAMERA1", "archive")
    assert settings.host == "127.0.0.1"


def test_the_example_shows_every_setting_and_its_default(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(uncommented())
    settings = read_settings(tmp_path / "node.toml")
    shown = tomllib.loads(uncommented())
    assert shown.keys() == Settings.model_fields.keys()
    assert shown["tls"].keys() == Tls.model_fields.keys()
    keys = {key for one in shown["destinations"] for key in one}
    assert keys == type(settings.destinations[0]).model_fields.keys()
    assert shown["peers"][0].keys() == type(settings.peers[0]).model_fields.keys()
    default = Settings(spool=settings.spool)
    for name in ("reading", "limits", "retries"):
        assert shown[name].keys() == type(getattr(default, name)).model_fields.keys()
    for name in ("limits", "retries"):
        assert getattr(settings, name) == getattr(default, name)
    plain = {name for name in shown if not isinstance(shown[name], dict | list)}
    for name in plain - {"spool", "refused", "monitor_port"}:
        assert getattr(settings, name) == getattr(default, name), name


def test_a_misspelt_setting_of_the_example_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(uncommented().replace("keep_days", "keep_day"))
    with pytest.raises(RbsError, match=r"keep_day is no setting of a node; write keep_days"):
        read_settings(tmp_path / "node.toml")


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "rbs-node.service")
    return parser


def test_the_service_writes_where_the_example_says() -> None:
    service = unit()["Service"]
    settings = read_settings(DEPLOY / "node.toml")
    assert settings.audit
    assert settings.spool.is_relative_to(Path("/var/lib", service["StateDirectory"]))
    assert settings.audit.site_key_file.is_relative_to(Path("/var/lib", service["StateDirectory"]))
    assert settings.audit.file.is_relative_to(Path("/var/log", service["LogsDirectory"]))
    # The restoring process has its own limit, and the node beside it needs some, too.
    assert service["MemoryMax"] == "4G"
    assert settings.memory_mib + 512 < 4 * 1024


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = judge("systemd-analyze")
    text = (DEPLOY / "rbs-node.service").read_text().replace("/opt/rbs/bin/rbs", sys.executable)
    (tmp_path / "rbs-node.service").write_text(text)
    verify = [analyze, "verify", "--man=no", tmp_path / "rbs-node.service"]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    security = [analyze, "security", "--offline=true", "--threshold=20", tmp_path / "rbs-node.service"]
    done = subprocess.run(security, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_and_holds_no_more_than_it_names() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert int(user) > 0
    assert COMPOSE["services"]["rbs"]["user"].partition(":")[0] == user
    copied = {
        name for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for name in line.split()
    }
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored
    assert all((ROOT / name).exists() for name in copied)
    assert "torch" not in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = set(re.findall(r"^FROM python:([\d.]+)", text, re.MULTILINE))
    assert len(versions) == 1
    assert versions.pop() in SpecifierSet(project["requires-python"])


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run(
        [judge("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_keeps_to_its_specification() -> None:
    compose_spec = pytest.importorskip("compose_spec")
    text = (DEPLOY / "compose.yaml").read_text()
    compose_spec.PyCompose.from_yaml(text)
    with pytest.raises(ValueError, match="cap_dropp"):
        compose_spec.PyCompose.from_yaml(text.replace("cap_drop", "cap_dropp"))


def test_the_containers_may_do_little() -> None:
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    node = COMPOSE["services"]["rbs"]
    assert "ports" not in node
    assert [COMPOSE["networks"][name] for name in node["networks"]] == [{"internal": True}]


def test_orthanc_and_the_node_know_each_other() -> None:
    settings = read_settings(DEPLOY / "container.toml")
    node = ORTHANC["DicomModalities"]["rbs"]
    assert (node["AET"], node["Port"], node["Host"]) == (settings.ae_title, settings.port, "rbs")
    (peer,), (destination,) = settings.peers, settings.destinations
    assert peer.ae_title == destination.ae_title == ORTHANC["DicomAet"]
    assert (destination.host, destination.port) == ("orthanc", ORTHANC["DicomPort"])
    assert {"rbs", "orthanc"} == COMPOSE["services"].keys()
    route = (DEPLOY / "route.lua").read_text()
    assert "MODALITY = 'rbs'" in route
    assert f"TITLE = '{settings.ae_title}'" in route
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"http://127.0.0.1:{settings.monitor_port}/health" in dockerfile
    assert f"EXPOSE {settings.port}" in dockerfile


def mounted(service: dict[str, Any]) -> dict[str, str]:
    return {target: source for source, target in (one.split(":")[:2] for one in service["volumes"])}


def test_what_is_mounted_is_there() -> None:
    for service in COMPOSE["services"].values():
        for source in mounted(service).values():
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()
    settings = read_settings(DEPLOY / "container.toml")
    assert settings.audit
    (place,) = (
        Path(target) for target, source in mounted(COMPOSE["services"]["rbs"]).items() if source == "spool"
    )
    written = (settings.spool, settings.audit.file, settings.audit.site_key_file)
    assert all(path.is_relative_to(place) for path in written)
