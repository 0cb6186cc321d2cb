"""Tables as text."""

from rbs.utils.markdown import latex, markdown


def test_markdown():
    assert markdown(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"


def test_latex_keeps_what_latex_would_read_otherwise():
    text = latex(["row", "bias, %"], [["no_spi & more", "\N{MINUS SIGN}1 counts²"]])
    assert "row & bias, \\% \\\\" in text
    assert "no\\_spi \\& more & $-$1 counts$^2$ \\\\" in text
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule\n")
