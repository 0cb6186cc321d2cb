"""Extras: the one a missing package belongs to, and none that is imported but listed nowhere."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from rbs.cli.main import main
from rbs.utils.extras import _DISTRIBUTIONS, missing_package

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements):
    return [re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements]


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("torch.nn", "torch", "train"),
        ("segment_anything", "segment-anything", "train"),
        ("skimage", "scikit-image", "train"),
        ("yaml", "PyYAML", "train"),
        ("pandas", "pandas", "evaluate"),
        ("av", "av", "endoscopy"),
        ("wandb", "wandb", "wandb"),
        ("optuna", "optuna", "sweep"),
    ],
)
def test_the_extra_is_named(module, package, extra):
    error = missing_package(ModuleNotFoundError(f"No module named '{module}'", name=module))
    assert f"this needs {package}, which the extra '{extra}' installs; run `pip install '.[{extra}]'`" in str(
        error
    )


@pytest.mark.parametrize("module", ["rbs.nothing", "numpy", "surely_not_there", None])
def test_what_no_extra_installs_is_a_fault_of_the_program(module):
    assert missing_package(ModuleNotFoundError(name=module)) is None


def test_a_command_says_what_it_lacks_in_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "skimage.registration", None)
    monkeypatch.setattr("rbs.cli.register.run", lambda _: __import__("skimage.registration"))
    assert main(["register", str(tmp_path / "a.dcm"), str(tmp_path / "b.dcm")]) == 1
    assert capsys.readouterr().err == (
        "rbs: this needs scikit-image, which the extra 'train' installs;"
        " run `pip install '.[train]'` in the clone of rbs, or `make setup` for all extras.\n"
    )


def test_all_extras_that_need_a_package_are_named():
    error = str(missing_package(ModuleNotFoundError(name="pydantic")))
    assert "which the extra 'sweep' or 'node' installs; run `pip install '.[sweep]'` or" in error


def test_a_package_has_one_range_of_versions_and_all_extras_stand_in_all():
    extras = PROJECT["optional-dependencies"]
    listed = {line for extra in extras.values() for line in extra if not line.startswith("rbs[")}
    assert len(names(listed)) == len(set(names(listed)))
    assert not set(names(listed)) & set(names(PROJECT["dependencies"]))
    told = re.findall(r"[\w]+", " ".join(extras["all"]))
    # `federate` would hold back packages of the others.
    assert set(extras) - {"all", "bm3d", "docs", "dev", "train", "federate"} == set(told) - {"rbs"}


def test_whatever_is_imported_is_listed():
    imported = set()
    for file in (ROOT / "rbs").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module)
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"rbs"}
    known = _DISTRIBUTIONS | {"PIL": "pillow", "markupsafe": "jinja2", "onnx_ir": "onnxscript"}
    wanted = {known.get(name, name.replace("_", "-")) for name in packages}
    listed = PROJECT["dependencies"] + [line for e in PROJECT["optional-dependencies"].values() for line in e]
    assert wanted <= set(names(listed))
