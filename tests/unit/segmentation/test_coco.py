"""Masks of COCO files, pixel for pixel; damaged files in one sentence."""

import json

import numpy as np
import pytest
from coco_files import box, compressed, lengths_of, write_coco

from rbs.errors import ManifestError
from rbs.scans.scan import REGIONS
from rbs.segmentation.anatomy import NONE, labels_of, region_of
from rbs.segmentation.coco import decode, read_coco

SHAPE = (40, 30)
LEGS, SPINE = REGIONS.index("legs") + 1, REGIONS.index("spine") + 1


def boxed(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def ring():
    return boxed(5, 5, 25, 20) & ~boxed(10, 8, 15, 12)


def test_polygons_fill_the_pixels_within():
    np.testing.assert_array_equal(decode([box(3, 4, 20, 9)], SHAPE), boxed(3, 4, 20, 9))
    both = decode([box(3, 4, 20, 9), box(15, 7, 30, 12)], SHAPE)
    np.testing.assert_array_equal(both, boxed(3, 4, 20, 9) | boxed(15, 7, 30, 12))
    # A hole that is drawn by a line leading to it and back.
    keyhole = [5, 5, 20, 5, 20, 25, 5, 25, 5, 10, 8, 10, 8, 15, 12, 15, 12, 10, 5, 10]
    np.testing.assert_array_equal(decode([keyhole], SHAPE), ring())
    # What lies beside the picture is cut off.
    np.testing.assert_array_equal(decode([box(-5, -5, 60, 3)], SHAPE), boxed(0, 0, 40, 3))


@pytest.mark.parametrize("coded", [list, compressed], ids=["numbers", "text"])
@pytest.mark.parametrize("mask", [ring(), boxed(0, 0, 40, 30), boxed(0, 0, 0, 0), boxed(0, 29, 40, 30)])
def test_run_lengths_are_read_with_their_holes(mask, coded):
    segmentation = {"size": list(SHAPE), "counts": coded(lengths_of(mask))}
    np.testing.assert_array_equal(decode(segmentation, SHAPE), mask)


def test_masks_are_those_of_the_reference_software():
    """Random polygons, also beyond the borders, and random masks."""
    reference = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = tuple(int(side) for side in rng.integers(3, 60, 2))
        polygon = rng.uniform(-8, 70, 2 * rng.integers(3, 12)).round(rng.integers(0, 3)).tolist()
        theirs = reference.decode(reference.frPyObjects([polygon], *shape))[..., 0].astype(bool)
        np.testing.assert_array_equal(decode([polygon], shape), theirs)
        mask = rng.random(shape) > rng.uniform(0.01, 0.99)
        text = reference.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert text == compressed(lengths_of(mask))
        np.testing.assert_array_equal(decode({"size": list(shape), "counts": text}, shape), mask)


def test_a_file_becomes_labels_and_the_later_region_wins(tmp_path):
    masks = [
        ("a.png", "Left femur", [box(5, 5, 20, 10)]),
        ("a.png", "L3", [box(2, 2, 8, 8)]),
        (
            "a.png",
            "right tibia",
            {"size": list(SHAPE), "counts": compressed(lengths_of(boxed(30, 0, 40, 30)))},
        ),
        ("a.png", "soft tissue", [box(0, 0, 40, 30)]),
    ]
    coco = read_coco(write_coco(tmp_path / "c.json", {"a.png": SHAPE, "b.png": SHAPE}, masks))
    values = labels_of(coco.categories, {}, coco.path)
    labels = coco.labels(coco.pictures["a.png"], values, SHAPE)
    expected = np.zeros(SHAPE, int)
    expected[2:8, 2:8] = SPINE
    expected[5:20, 5:10] = expected[30:40] = LEGS
    np.testing.assert_array_equal(labels, expected)
    assert not coco.labels(coco.pictures["b.png"], values, SHAPE).any()


@pytest.mark.parametrize(
    ("name", "region"),
    [
        *(("Left Femur", "legs"), ("femoral head", "legs"), ("kneeL", "legs"), ("right_foot", "legs")),
        *(("rib_r_7", "thorax"), ("LRib1", "thorax"), ("R scapula", "thorax"), ("sternum", "thorax")),
        *(("T12", "spine"), ("Thoracic vertebrae", "spine"), ("lumbar", "spine"), ("C7", "spine")),
        *(("Sacrum", "pelvis"), ("ilium_left", "pelvis"), ("hip joint L", "pelvis"), ("skull", "skull")),
        *(("L_humerus", "arms"), ("left forearm", "arms"), ("Hand R", "arms"), ("head", "skull")),
        *(("Kidney-Left", "urinary tract"), ("bladder", "urinary tract"), ("background", NONE)),
        *(("shoulder", None), ("thoracic", None), ("R1", None), ("lungs", None)),
    ],
)
def test_names_of_bones_tell_their_region(name, region):
    assert region_of(name) == region


def test_unknown_categories_are_all_named_unless_their_region_is_stated(tmp_path):
    names = ["skull", "shoulder L", "os X"]
    with pytest.raises(ManifestError, match=r"unknown: 'shoulder L', 'os X'; state it in a CSV"):
        labels_of(names, {}, tmp_path / "c.json")
    stated = labels_of(names, {"shoulder L": "arms", "os X": NONE}, tmp_path / "c.json")
    assert stated == {"skull": 1, "shoulder L": REGIONS.index("arms") + 1, "os X": 0}


PICTURE = {"id": 1, "file_name": "a.png", "height": 40, "width": 30}
ANNOTATION = {"id": 3, "image_id": 1, "category_id": 1, "segmentation": []}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is no COCO file of segmentations"),
        ("\xff", "it is not JSON"),
        ({"images": []}, "its annotation 3 is of an unknown picture or category"),
        ({"categories": []}, "its annotation 3 is of an unknown picture or category"),
        ({"images": [PICTURE, PICTURE | {"id": 2}]}, "it lists a.png twice"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, "it is no COCO file of segmentations"),
        (
            {"annotations": [{"id": 3, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]},
            "it is no COCO",
        ),
        ({"annotations": {}}, None),
        ({"images": 3}, "it is no COCO file of segmentations"),
    ],
)
def test_a_file_that_is_none_is_said_in_one_sentence(tmp_path, changes, fault):
    whole = {"images": [PICTURE], "categories": [{"id": 1, "name": "skull"}], "annotations": [ANNOTATION]}
    text = changes if isinstance(changes, str) else json.dumps(whole | changes)
    (tmp_path / "c.json").write_bytes(text.encode("latin-1"))
    if fault is None:
        assert read_coco(tmp_path / "c.json").pictures["a.png"].masks == ()
        return
    with pytest.raises(ManifestError) as raised:
        read_coco(tmp_path / "c.json")
    assert fault in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "c.json" in str(raised.value)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ManifestError, match="it cannot be read"):
        read_coco(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        ([[1, 2, 3, 4]], "fewer than three corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "fewer than three corners"),
        ([[1, 2, 3, 4, 5, float("nan")]], "fewer than three corners"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside"),
        ([["a"] * 6], "damaged"),
        (7, "damaged"),
        ({"size": [40, 31], "counts": [1240]}, "run lengths of"),
        ({"size": [40, 30], "counts": [100, 100]}, "do not fill"),
        ({"size": [40, 30], "counts": [1300, -100]}, "do not fill"),
        ({"size": [40, 30], "counts": [10**30]}, "damaged"),
        ({"size": [40, 30], "counts": "o" * 100_000}, "too long"),
        ({"size": [40, 30], "counts": compressed([600, 600])[:-1]}, "end early"),
        ({"counts": "5"}, "damaged"),
    ],
)
def test_a_damaged_mask_is_named(tmp_path, segmentation, fault):
    file = write_coco(tmp_path / "c.json", {"a.png": SHAPE}, [("a.png", "skull", segmentation)])
    coco = read_coco(file)
    with pytest.raises(ManifestError) as raised:
        coco.labels(coco.pictures["a.png"], {"skull": 1}, SHAPE)
    assert fault in str(raised.value)
    assert "a mask of 'skull' in a.png is damaged" in str(raised.value)


def test_another_size_is_refused(tmp_path):
    coco = read_coco(write_coco(tmp_path / "c.json", {"a.png": (30, 40)}, []))
    with pytest.raises(
        ManifestError, match=r"says a.png has 30 x 40 rows and columns, but it has 40 x 30; give"
    ):
        coco.labels(coco.pictures["a.png"], {}, SHAPE)
