"""Damaged weights, exports, checkpoints, teachers, priors and notes: loaded to the same, or refused.

    python tests/fuzz_weights.py --files 5000

Damages what `rbs` reads besides images: restorers, cascades and uncertainty heads (safetensors),
Lightning checkpoints, ONNX exports, folders of adapted teachers, stored semantic priors, and the
notes of an index. Faults are blind (bits, bytes, lengths), or aimed at headers and at the values of
descriptions; some are planted, with a digest that belongs to them, as an attacker would write it.
Demands of each result:

* It is loaded and gives what the intact file gives, to the bit, or an `RbsError` names the file, a
  fault and a remedy; priors and notes are made again. A planted description may give another
  network, whose answer is finite and of the right shape.
* It takes less than 10 s and no more than 2 GiB, and nothing asks for more memory than that.
* No module is imported that a file names.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import onnx
import torch
from fuzzing import Damaged, Wrong, blind
from nm_files import poisson, write_nm
from onnx import helper
from safetensors.torch import load_file, save_file
from segmenters import given
from small_onnx import ABOUT, endless_loop, small_model

from rbs.data.indexing import records
from rbs.distillation.cascade import Cascade, load_cascade, save_cascade, second_restorer
from rbs.distillation.prior_cache import PriorCache
from rbs.distillation.spi import SPI
from rbs.errors import RbsError
from rbs.inference.onnx import load_onnx
from rbs.inference.onnx_file import with_description
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.dncnn import DnCNN
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.uncertainty import UncertaintyHead, load_uncertainty, save_uncertainty
from rbs.segmentation import adapters
from rbs.segmentation.prior import SemanticPrior
from rbs.segmentation.sam import ARCHITECTURES, build_sam
from rbs.utils.checkpoint import digest_of

RAPID = np.random.default_rng(0).poisson(3.0, (2, 24, 16))
FOREIGN = "planted_module"
DEEP = "[" * 100_000 + "]" * 100_000
TEXTS = ["NaN", "1e999", "-Infinity", "1" * 5000, DEEP, '"\\u0000"', "{", "", "null", "[1, 2"]
"""JSON, or none, in place of a value."""
CLASSES = [f"{FOREIGN}.Net", FOREIGN, f"rbs.restorers.{FOREIGN}.Net", "os.system", "rbs.cli.__main__.main"]
VALUES: list[Any] = [
    *CLASSES,
    *("text", "", "\x1b]0;x\x07", "a" * 100_000, "/etc/passwd", "https://example.org/w.pth", "../x", "-4"),
    *(-4, 0, 1, 2, 7, 300, 10**6, 10**12, 10**30, -1.5, 0.5, 1e308, True, False, None),
    *([], {}, [1, 2, 3], ["a", "b"], [[1]] * 100, [1] * 300, [0.1, 0.2], {"a": 1}),
    *({"class_path": f"{FOREIGN}.Net", "init_args": {}}, [{"class_path": f"{FOREIGN}.Net"}]),
]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        path: The file that is damaged, or the folder.
        restore: Writes it intact.
        damage: Damages it; the name of what was done, beginning with "planted" if all digests fit.
        load: What it gives, arrays or text by name.
        share: Relative number of them.
    """

    path: Path
    restore: Callable[[], None]
    damage: Callable[[np.random.Generator], str]
    load: Callable[[], dict[str, Any]]
    share: float


# --- damage


def _bytes(path: Path, rng: np.random.Generator) -> str:
    data = bytearray(path.read_bytes())
    names = [blind(data, rng) for _ in range(rng.integers(1, 4))]
    path.write_bytes(data)
    return "+".join(names)


def _changed(values: Any, rng: np.random.Generator) -> str:
    """Change one value, somewhere in JSON, in place; the name of it."""
    place, name = values, ""
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return "nothing"
        key = keys[rng.integers(len(keys))]
        name += f".{key}"
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            break
        place = place[key]
    what = rng.random()
    if isinstance(place, dict) and what < 0.15:
        del place[key]
        return f"without {name}"
    if isinstance(place, dict) and what < 0.3:
        place[str(rng.choice(["wings", "digest", "class_path", "f2", "head"]))] = place[key]
        return f"twice {name}"
    place[key] = VALUES[rng.integers(len(VALUES))]
    return f"{name} = {str(place[key])[:40]}"


def _json(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """JSON with a value changed, or a text that is none in place of one."""
    values = json.loads(text)
    name = _changed(values, rng)
    if rng.random() < 0.2:
        raw = TEXTS[rng.integers(len(TEXTS))]
        return raw if rng.random() < 0.3 else json.dumps({**values, "x": 0})[:-2] + raw + "}", f"raw {name}"
    return json.dumps(values), name


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _header(path: Path, rng: np.random.Generator) -> str:
    """Change the header of a safetensors file: types, shapes, offsets, names; or its length."""
    header, data = _parts(path)
    text, name = json.dumps(header), "header"
    if rng.random() < 0.1:
        length = int(rng.choice([0, 1, len(text) - 1, len(text) + 1, 2**25, 2**40, 2**63]))
        path.write_bytes(length.to_bytes(8, "little") + text.encode() + data)
        return f"length {length}"
    tensors = [key for key in header if key != "__metadata__"]
    key = tensors[rng.integers(len(tensors))]
    what = str(rng.choice(["dtype", "shape", "data_offsets", "name", "json", "swap"]))
    if what == "dtype":
        header[key]["dtype"] = str(rng.choice(["F64", "F32", "F16", "BF16", "I32", "C64", "U8", "BOOL", "X"]))
    elif what == "shape":
        header[key]["shape"] = [int(n) for n in rng.choice([0, 1, 2, 3, 10**6, 2**62], size=rng.integers(5))]
    elif what == "data_offsets":
        header[key]["data_offsets"] = [int(n) for n in rng.choice([0, 4, 8, len(data), 10**12], size=2)]
    elif what == "name":
        header[str(rng.choice(["x", "", "head.weight", "f2.head.weight"]))] = header.pop(key)
    elif what == "swap":
        other = tensors[rng.integers(len(tensors))]
        header[key], header[other] = header[other], header[key]
    if what == "json":
        text, name = _json(text, rng)
    else:
        text, name = json.dumps(header), f"{what} of {key}"
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode() + data)
    return name


def _described(path: Path, rng: np.random.Generator) -> str:
    """Change the description of a safetensors file, with a digest that fits, or the old one."""
    header, data = _parts(path)
    values = json.loads(header["__metadata__"]["rbs"])
    digest = values.pop("digest")
    planted = rng.random() < 0.6
    spec = values.get("f2") or values.get("head") or values
    # Arguments are most of what makes another network.
    name = _changed(spec["init_args"] if rng.random() < 0.5 else values, rng)
    values.setdefault("digest", digest_of(load_file(path), values) if planted else digest)
    text = json.dumps(values)
    if not planted and rng.random() < 0.3:
        text = text[:-1] + f', "x": {TEXTS[rng.integers(len(TEXTS))]}}}'
    header["__metadata__"]["rbs"] = text
    text = json.dumps(header)
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode() + data)
    return f"planted {name}" if planted else name


def _tensors(path: Path, rng: np.random.Generator) -> str:
    """Exchange a tensor for one of another type, shape or value, with a digest that fits."""
    header, _ = _parts(path)
    values = json.loads(header["__metadata__"]["rbs"])
    values.pop("digest")
    state = load_file(path)
    name, what = sorted(state)[rng.integers(len(state))], _tensor_fault(rng)
    state[name] = what(state[name])
    save_file(state, path, {"rbs": json.dumps(values | {"digest": digest_of(state, values)})})
    return f"planted {name}"


def _tensor_fault(rng: np.random.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    faults: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda t: t.to(torch.int32),
        lambda t: t.to(torch.complex64),
        lambda t: t.double(),
        lambda t: t * float("nan"),
        lambda t: t + float("inf"),
        lambda t: t[None].clone(),
        lambda t: t.flatten()[:1].clone(),
        lambda t: torch.zeros(0),
    ]
    return faults[rng.integers(len(faults))]


def _safetensors(path: Path, rng: np.random.Generator) -> str:
    return _one_of(rng, (0.4, _bytes), (0.25, _header), (0.25, _described), (0.1, _tensors))(path, rng)


def _one_of(rng: np.random.Generator, *ways: tuple[float, Callable[..., str]]) -> Callable[..., str]:
    shares = np.array([share for share, _ in ways])
    return ways[rng.choice(len(ways), p=shares / shares.sum())][1]


def _checkpoint(path: Path, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        return _bytes(path, rng)
    content = torch.load(path, weights_only=True)
    what = rng.random()
    if what < 0.5:
        name = _changed(content["rbs"], rng)
    elif what < 0.75:
        key = list(content["state_dict"])[rng.integers(len(content["state_dict"]))]
        value = content["state_dict"][key]
        content["state_dict"][key] = (
            _tensor_fault(rng)(value) if rng.random() < 0.7 else VALUES[rng.integers(len(VALUES))]
        )
        name = key
    else:
        name = str(rng.choice(["rbs", "state_dict", "all"]))
        value = VALUES[rng.integers(len(VALUES))]
        content = value if name == "all" else {**content, name: value}
    torch.save(content, path)
    return f"planted {name}"


def _export(path: Path, rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return _bytes(path, rng)
    model = onnx.load_model_from_string(path.read_bytes())
    about = json.loads(model.metadata_props[0].value)
    digest = about.pop("digest")
    node, graph = model.graph.node[0], model.graph
    what = str(rng.choice(["about", "op", "loop", "input", "weight", "attribute", "domain", "field"]))
    if what == "about":
        what = _changed(about, rng)
    elif what == "op":
        node.op_type = str(rng.choice(["Loop", "If", "Scan", "RandomNormal", "ConvTranspose", "Add", ""]))
    elif what == "loop":
        graph.node.insert(0, endless_loop())
    elif what == "input":
        graph.input[rng.integers(2)].name = str(rng.choice(["x", "", "rapid"]))
    elif what == "weight":
        weight = graph.initializer[0]
        weight.dims[rng.integers(4)] = int(rng.choice([0, 1, 3, 10**6, 2**40]))
    elif what == "attribute":
        node.attribute[0].ints[rng.integers(4)] = int(rng.choice([-1, 0, 2, 10**9, 2**62]))
    elif what == "domain":
        node.domain = "com.example"
    else:
        graph.initializer[0].data_location = 1
        graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    del model.metadata_props[:]
    if rng.random() < 0.7:
        path.write_bytes(with_description(model.SerializeToString(), about))
        return f"planted {what}"
    helper.set_model_props(model, {"rbs": json.dumps({**about, "digest": digest})})
    path.write_bytes(model.SerializeToString())
    return what


def _teacher(folder: Path, rng: np.random.Generator) -> str:
    weights, settings = folder / adapters.WEIGHTS, folder / adapters.SETTINGS
    what = rng.random()
    if what < 0.3:
        return f"weights: {_bytes(weights, rng)}"
    if what < 0.6:
        return f"settings: {_bytes(settings, rng)}"
    values = json.loads(settings.read_text())
    name = _changed(values, rng)
    if "digest" in values and rng.random() < 0.7:
        values["digest"] = adapters._digest(values)
        name = f"planted {name}"
    settings.write_text(json.dumps(values))
    return name


def _stored(path: Path, rng: np.random.Generator) -> str:
    return (_bytes if rng.random() < 0.5 else _header)(path, rng)


def _notes(path: Path, rng: np.random.Generator) -> str:
    if rng.random() < 0.4:
        return _bytes(path, rng)
    lines = path.read_text().splitlines()
    number = int(rng.integers(len(lines)))
    # A hash stands in front of each note.
    digest, brace, text = lines[number].partition("{")
    text, name = _json(brace + text, rng)
    lines[number] = digest + text
    path.write_text("\n".join(lines) + "\n")
    return f"line {number}: {name}"


# --- files and what they give


def _saved(path: Path) -> Callable[[], None]:
    """Writes again what the path holds now."""
    content = {file: file.read_bytes() for file in (path.iterdir() if path.is_dir() else [path])}

    def restore() -> None:
        for file, data in content.items():
            file.write_bytes(data)

    return restore


def _restored(path: Path) -> dict[str, Any]:
    loaded = load_restorer(path)
    return {"restored": loaded.restore(RAPID, 0.5), "ranges": str(loaded.provenance)}


def kinds(folder: Path) -> dict[str, Kind]:
    """Every kind of file, written intact."""
    torch.manual_seed(0)
    net = NAFNet(width=2, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], sigma_px=0.8)
    second = DnCNN(depth=2, width=3, sigma_px=0.0)
    for one in (net, second):
        torch.nn.init.normal_(one.head.weight, std=0.05)
    provenance = {"spacing_mm": [2.0, 2.6], "exposure": [0.25, 0.75], "steps": 3, "losses": [{"x": 1}]}
    paths = {
        name: folder / f"{name}.safetensors" for name in ("restorer", "second", "head", "cascade", "frames")
    }
    save_restorer(paths["restorer"], net, provenance)
    save_restorer(paths["second"], second, provenance)
    first = load_restorer(paths["restorer"])
    spi = SPI(4)
    told = second_restorer(net, spi, "i1", second)
    torch.nn.init.normal_(told.head.weight, std=0.05)
    save_cascade(paths["cascade"], Cascade(net, told, spi), provenance)
    save_uncertainty(paths["head"], UncertaintyHead(2, 3), first.sha256, provenance)
    checkpoint = folder / "last.ckpt"
    state = {f"cascade.f1.{n}": t for n, t in net.state_dict().items()} | {"cascade.f2.x": torch.ones(3)}
    made = {**net.spec(), "version": "0.2.0", "provenance": provenance}
    torch.save({"state_dict": state, "rbs": made, "epoch": 3, "hyper_parameters": {"lr": 1e-3}}, checkpoint)
    export = folder / "f1.onnx"
    about = {**ABOUT, "provenance": {"exposure": [0.25, 0.75]}}
    export.write_bytes(with_description(small_model().SerializeToString(), about))

    def second_pass() -> dict[str, Any]:
        cascade, _ = load_cascade(paths["cascade"], first.restorer)
        x = torch.as_tensor(RAPID[None], dtype=torch.float32)
        prior = SemanticPrior(torch.ones(1, 2, 4, 2, 1), torch.ones(1, 2, 9, 12, 8) / 10, 16, 2)
        with torch.inference_mode():
            i2 = cascade(x, torch.tensor([0.5]), prior).i2
        assert i2 is not None
        return {"restored": i2[0].numpy()}

    def deviation() -> dict[str, Any]:
        return {"restored": load_uncertainty(first, paths["head"]).deviation(RAPID, 0.5)}

    def by_onnx() -> dict[str, Any]:
        loaded = load_onnx(export)
        return {"restored": loaded.restore(RAPID, 0.5), "ranges": str(loaded.provenance)}

    def kind(path: Path, way: Any, load: Callable[[], dict[str, Any]], share: float) -> Kind:
        return Kind(path, _saved(path), partial(way, path), load, share)

    return {
        "restorer": kind(paths["restorer"], _safetensors, partial(_restored, paths["restorer"]), 20),
        "second restorer": kind(paths["second"], _safetensors, partial(_restored, paths["second"]), 10),
        "cascade": kind(paths["cascade"], _safetensors, second_pass, 10),
        "head": kind(paths["head"], _safetensors, deviation, 10),
        "checkpoint": kind(checkpoint, _checkpoint, partial(_restored, checkpoint), 14),
        "export": kind(export, _export, by_onnx, 16),
        "teacher": _teacher_of(folder / "teacher", kind),
        "prior": _prior_of(folder / "priors", kind),
        "notes": _notes_of(folder / "notes", kind),
    }


def _teacher_of(folder: Path, kind: Any) -> Kind:
    folder.mkdir()
    base = folder.with_name("sam.safetensors")
    sam = ARCHITECTURES["vit_t"].build()
    save_file({name: tensor.half() for name, tensor in sam.state_dict().items()}, base)
    teacher = adapters.trainable_teacher("vit_t", "lora", rank=2)
    adapters.start(teacher, build_sam("vit_t", base))
    adapters.save_teacher(folder, teacher, mode="lora", rank=2, base=base)
    x = torch.as_tensor(RAPID[None], dtype=torch.float32)

    def load() -> dict[str, Any]:
        with torch.inference_mode():
            return {"restored": adapters.load_teacher(folder, base)(*given(x)).numpy()}

    return kind(folder, _teacher, load, 2)


def _prior_of(folder: Path, kind: Any) -> Kind:
    drawn = torch.Generator().manual_seed(0)
    prior = SemanticPrior(
        torch.rand(1, 2, 5, 2, 1, generator=drawn), torch.rand(1, 2, 9, 12, 8, generator=drawn), 16, 2
    )

    def load() -> dict[str, Any]:
        found = PriorCache(folder, "digest").get_or_compute(RAPID, 0.5, (2.26, 2.26), lambda *_: prior)
        strides = f"{found.embedding_stride} {found.mask_stride}"
        # Copies: what was read is mapped to the file, which is damaged in place.
        masks, embedding = (tensor.numpy().copy() for tensor in (found.masks, found.embedding))
        return {"restored": masks, "embedding": embedding, "strides": strides}

    load()
    (path,) = folder.glob("*.safetensors")
    return kind(path, _stored, load, 10)


def _notes_of(folder: Path, kind: Any) -> Kind:
    folder.mkdir()
    scan = write_nm(folder / "scan.dcm", poisson(2), views=("anterior", "posterior"))
    broken = folder / "broken.dcm"
    broken.write_bytes(b"no scan")
    cache = folder / "notes.jsonl"

    def load() -> dict[str, Any]:
        notes, _ = records.read_notes([scan, broken], {}, cache, workers=1, progress=False)
        shown = [{**asdict(note), "cells": str(getattr(note, "cells", None))} for note in notes]
        return {"notes": str(shown)}

    load()
    return kind(cache, _notes, load, 8)


# --- judging


def judge(kind: Kind, name: str, wanted: dict[str, Any], planted: bool, mark: Path) -> str:
    """Load a damaged file and say what came of it.

    Raises:
        Wrong: Something that must not happen.
    """
    try:
        found = kind.load()
    except RbsError as error:
        _must_be_good(error, kind.path)
        outcome = "refused"
    else:
        same = found.keys() == wanted.keys() and all(
            np.array_equal(found[key], wanted[key]) if key != "ranges" or not planted else True
            for key in found
        )
        if not same and not planted:
            raise Wrong("it gives something else than the intact file")
        if not same and not (
            found["restored"].shape == wanted["restored"].shape and np.isfinite(found["restored"]).all()
        ):
            raise Wrong("it gives something that is not finite or of another shape")
        outcome = "as the intact file" if same else "another network, as planted"
    if mark.exists() or FOREIGN in sys.modules:
        raise Wrong("it imported what it names")
    return f"{name}: {outcome}"


def _must_be_good(error: RbsError, path: Path) -> None:
    text = str(error)
    named = path.name in text
    if not named or not error.remedy or len(error.fault) > 400 or not error.fault.isprintable():
        raise Wrong(f"a bad refusal: {error!r}") from error
    if "allocate" in text or "MemoryError" in text:
        raise Wrong(f"it asked for more memory than there is: {error}") from error


def fuzz(folder: Path, numbers: range, seed: int, keep: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Damage and judge files: how many came to what, and what must not have happened."""
    mark = folder / "imported"
    (folder / f"{FOREIGN}.py").write_text(f"import pathlib; pathlib.Path({str(mark)!r}).touch()")
    sys.path.insert(0, str(folder))
    logging.getLogger("rbs").setLevel(logging.ERROR)
    files = kinds(folder)
    wanted = {name: kind.load() for name, kind in files.items()}
    for kind in files.values():
        kind.restore()
    shares = np.array([kind.share for kind in files.values()], dtype=float)

    def damage(rng: np.random.Generator) -> Damaged:
        name = str(rng.choice(list(files), p=shares / shares.sum()))
        kind = files[name]
        kind.restore()
        faults = kind.damage(rng)
        planted = faults.startswith("planted")

        def judged() -> str:
            try:
                return judge(kind, name, wanted[name], planted, mark)
            finally:
                mark.unlink(missing_ok=True)
                sys.modules.pop(FOREIGN, None)

        return Damaged(f"{name}: {faults}", kind.path, judged)

    try:
        return fuzzing.judge_all(damage, numbers, seed, keep)
    finally:
        for kind in files.values():
            kind.restore()
        sys.path.remove(str(folder))
        logging.getLogger("rbs").setLevel(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(fuzzing.main("Damaged weights and notes.", 5_000, fuzz))
