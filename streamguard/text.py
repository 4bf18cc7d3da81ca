"""Texts for people: texts from other sources made safe to print, and numbers with their nouns."""


def printable(text: str, keep: str = "") -> str:
    r"""Replace every character that is not a letter, digit, sign or space with the replacement character.

    Parameters
    ----------
    keep
        Characters that stay unchanged in any case.

    Examples
    --------
    >>> printable("red \x1b[31m\n"), printable("two\nlines\r", keep="\n")
    ('red �[31m�', 'two\nlines�')
    """
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    Examples
    --------
    >>> counted(1, "user"), counted(2500, "user")
    ('1 user', '2,500 users')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shortened(text: str, limit: int) -> str:
    """The text, cut to `limit` characters with an ellipsis at its end.

    Examples
    --------
    >>> shortened("abcdef", 4), shortened("abcd", 4)
    ('abc…', 'abcd')
    """
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
