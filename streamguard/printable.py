"""Texts that others wrote, made safe to show: without what steers a terminal, or hides what is beside it."""


def printable(text: str, keep: str = "") -> str:
    r"""The text with a replacement character for each that is no letter, digit, sign or space.

    Parameters
    ----------
    keep
        Characters that stay whatever they are.

    Examples
    --------
    >>> printable("red \x1b[31m\n"), printable("two\nlines\r", keep="\n")
    ('red �[31m�', 'two\nlines�')
    """
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)
