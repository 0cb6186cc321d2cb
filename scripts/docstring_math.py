"""Formulas of docstrings on the documentation site: reStructuredText math to MathML.

An extension of griffe, named in mkdocs.yml. Browsers draw MathML themselves, so the site loads no
script from elsewhere.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

INLINE = re.compile(r":math:`([^`]+)`")
BLOCK = re.compile(r"^( *)\.\. math::\n+((?:\1 +\S.*\n?|\n)+)", re.MULTILINE)


class DocstringMath(griffe.Extension):
    """Conversion of the formulas of every docstring as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Convert the docstring of one module, class or function."""
        if obj.docstring is not None:
            obj.docstring.value = with_mathml(obj.docstring.value)


def with_mathml(text: str) -> str:
    """Text in which formulas are MathML."""
    text = BLOCK.sub(lambda m: f"{m[1]}{convert(_one_line(m[2]), display='block')}\n\n", text)
    return INLINE.sub(lambda m: convert(_one_line(m[1])), text)


def _one_line(formula: str) -> str:
    return " ".join(textwrap.dedent(formula).split())
