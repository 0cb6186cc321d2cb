"""The metadata of the model card: each figure stands in the text below it."""

import re
from importlib.resources import files

import yaml

HEAD, BODY = re.fullmatch(
    r"---\n(.*?)\n---\n(.*)", (files("rbs") / "weights" / "README.md").read_text(), re.DOTALL
).groups()


def test_figures_of_the_head_stand_in_the_text():
    results = yaml.safe_load(HEAD)["model-index"][0]["results"]
    figures = [str(metric["value"]) for result in results for metric in result["metrics"]]
    assert figures
    missing = [f for f in figures if not re.search(rf"(?<![\d.]){re.escape(f)}(?![\d]|\.\d)", BODY)]
    assert missing == []


def test_licence_is_that_of_the_text():
    assert yaml.safe_load(HEAD)["license"] == "apache-2.0"
    assert "Apache-2.0" in BODY
