"""ONNX files from elsewhere: looked through before they are run."""

import json
from contextlib import suppress

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from small_onnx import ABOUT, endless_loop, small_model

from rbs.errors import CheckpointError
from rbs.inference.onnx import load_onnx
from rbs.inference.onnx_file import with_description
from rbs.weights.shipped import file_sha256


def write(path, model, about=ABOUT):
    path.write_bytes(with_description(model.SerializeToString(), about))
    return path


def test_an_export_is_read_and_restores(tmp_path):
    loaded = load_onnx(write(tmp_path / "f1.onnx", small_model()))
    rapid = np.random.default_rng(0).poisson(3.0, (2, 20, 16))
    assert loaded.restore(rapid, 0.5).shape == rapid.shape
    assert loaded.sha256 == "ab" * 32
    # Files of rbs 0.2.0 and before have no digest.
    model = small_model()
    helper.set_model_props(model, {"rbs": json.dumps(ABOUT)})
    (tmp_path / "old.onnx").write_bytes(model.SerializeToString())
    np.testing.assert_array_equal(
        load_onnx(tmp_path / "old.onnx").restore(rapid, 0.5), loaded.restore(rapid, 0.5)
    )


def with_external_data():
    model = small_model()
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return model


def padded_by(pixels):
    model = small_model()
    model.graph.node[0].attribute[0].ints[0] = pixels
    return model


def of_a_foreign_domain():
    model = small_model(helper.make_node("Add", ["rapid", "rapid"], ["x"], domain="com.example"))
    model.opset_import.add(domain="com.example", version=1)
    return model


def with_a_function():
    model = small_model()
    model.functions.add(name="f", domain="")
    return model


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (small_model(endless_loop()), "an operator that rbs does not run: 'Loop'"),
        (small_model(helper.make_node("RandomNormalLike", ["rapid"], ["x"])), "'RandomNormalLike'"),
        (with_external_data(), "keeps weights in another file"),
        (of_a_foreign_domain(), "operators of others"),
        (with_a_function(), "more than one graph"),
        (padded_by(10**9), "an argument that is far too large"),
        (onnx.ModelProto(), "an ONNX file of a whole network|takes"),
    ],
)
def test_what_an_export_never_holds_is_not_run(model, fault, tmp_path, monkeypatch):
    if model.graph.node:
        monkeypatch.setattr(onnxruntime, "InferenceSession", None)
    path = write(tmp_path / "f1.onnx", model)
    with pytest.raises(CheckpointError, match=fault) as caught:
        load_onnx(path)
    assert caught.value.file == path


@pytest.mark.parametrize("shapes", [(("b", 2, "h", "w"), ("b", 1)), (("b", 2, "h"), ("b",))])
def test_other_inputs_are_refused(shapes, tmp_path):
    path = write(tmp_path / "f1.onnx", small_model(shapes=shapes))
    with pytest.raises(CheckpointError, match=r"it takes .*, not rapid and exposure|truncated or not"):
        load_onnx(path)


def test_another_name_of_an_input_is_refused(tmp_path):
    model = small_model()
    model.graph.input[1].name = "time"
    with pytest.raises(CheckpointError, match=r"it takes \['rapid', 'time'\], not rapid and exposure"):
        load_onnx(write(tmp_path / "f1.onnx", model))


@pytest.mark.parametrize(
    "about",
    [
        {"provenance": "text"},
        {"provenance": {"spacing_mm": ["a", "b"]}},
        {"provenance": {"exposure": [0.5]}},
        {"name": "\x1b[2J"},
        {"weights_sha256": 7},
        {"version": None},
        {"restores": "hearts"},
        {"wings": 2},
    ],
)
def test_a_description_of_other_types_is_refused(about, tmp_path):
    path = write(tmp_path / "f1.onnx", small_model(), ABOUT | about)
    with pytest.raises(CheckpointError, match="no intact export of a restorer") as caught:
        load_onnx(path)
    assert str(caught.value).isprintable()


def test_every_flipped_byte_is_noticed(tmp_path):
    """Also in the weights, where ONNX Runtime would compute something else with it."""
    path = write(tmp_path / "f1.onnx", small_model())
    intact, rapid = path.read_bytes(), np.random.default_rng(0).poisson(3.0, (2, 12, 16))
    wanted = load_onnx(path).restore(rapid, 0.5)
    for place in range(0, len(intact)):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 4]) + intact[place + 1 :])
        with suppress(CheckpointError):
            np.testing.assert_array_equal(load_onnx(path).restore(rapid, 0.5), wanted)


def test_a_card_beside_an_export_must_match(tmp_path):
    path = write(tmp_path / "f1.onnx", small_model())
    path.with_suffix(".json").write_text(json.dumps({"sha256": file_sha256(path)}))
    load_onnx(path)
    path.write_bytes(path.read_bytes() + b"\x0a\x00")
    with pytest.raises(CheckpointError, match="differs from the hash recorded beside it; copy both again"):
        load_onnx(path)
