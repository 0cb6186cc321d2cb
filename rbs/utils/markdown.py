"""Tables as text: Markdown to read, LaTeX to print."""

from __future__ import annotations

from collections.abc import Sequence

_SPECIAL = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "²": "$^2$", "\N{MINUS SIGN}": "$-$"}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with a final line break."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def latex(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX tabular in the style of booktabs; the first column is text, all others numbers."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(_SPECIAL.get(c, c) for c in cell) for cell in cells) + r" \\" + "\n"

    body = "".join(line(row) for row in rows)
    columns = "l" + "r" * (len(head) - 1)
    top = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
    return f"{top}{line(head)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
