"""Numbers and the nouns they count."""


def counted(number: int, noun: str) -> str:
    """A number and its noun, which takes an s unless the number is 1: "1 scan", "2 scans"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
