"""Damaged and hostile weights on the command line: one sentence, exit status 1, nothing written."""

import json
from pathlib import Path

import pytest
import torch
from nm_files import poisson, write_nm
from safetensors.torch import save_file
from small_onnx import ABOUT, endless_loop, small_model

from rbs.inference.onnx_file import with_description
from rbs.weights.shipped import SHIPPED


def flipped(folder: Path) -> Path:
    data = bytearray(SHIPPED.read_bytes())
    data[-5000] ^= 1
    (folder / "copy.safetensors").write_bytes(data)
    return folder / "copy.safetensors"


def described(folder: Path, description: object) -> Path:
    text = description if isinstance(description, str) else json.dumps(description)
    save_file({"head.weight": torch.ones(1)}, folder / "f1.safetensors", {"rbs": text})
    return folder / "f1.safetensors"


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "last.ckpt")
    return folder / "last.ckpt"


def looping(folder: Path) -> Path:
    content = with_description(small_model(endless_loop()).SerializeToString(), ABOUT)
    (folder / "f1.onnx").write_bytes(content)
    return folder / "f1.onnx"


NAFNET = {"class_path": "rbs.restorers.nafnet.NAFNet"}


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (flipped, "it is damaged: its weights or its description are not those that were written"),
        (lambda f: described(f, "[" * 100_000), "it is nested too deeply"),
        (lambda f: described(f, {**NAFNET, "provenance": "text"}), "its provenance is 'text'"),
        (
            lambda f: described(f, {**NAFNET, "init_args": {"width": -4}}),
            "cannot be built from its arguments",
        ),
        (lambda f: described(f, {"class_path": "antigravity.Net"}), "is not of rbs"),
        (lambda f: saved(f, [1]), "it is not a checkpoint"),
        (lambda f: saved(f, {"state_dict": [1], "rbs": {}}), "it is not a checkpoint of RestorationTask"),
        (looping, "an operator that rbs does not run: 'Loop'"),
    ],
)
def test_restore(make, fault: str, rbs, tmp_path: Path) -> None:
    scan = write_nm(tmp_path / "scan.dcm", poisson(2), views=("anterior", "posterior"))
    weights, out = make(tmp_path), tmp_path / "out.dcm"
    status, _, errors = rbs("restore", scan, out, "--checkpoint", weights)
    assert (status, out.exists()) == (1, False)
    (line,) = errors.splitlines()
    assert str(weights) in line
    assert fault in line
    assert line.endswith(".")
    assert "Traceback" not in errors
