"""Explains that a question needs a package of the extra `serve`, which the commands do without otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamguard.errors import ConfigurationError


@contextmanager
def of_serve(what: str) -> Iterator[None]:
    """Within this context, a missing package is a `ConfigurationError` that names the extra.

    Examples
    --------
    >>> with of_serve("the archive"):
    ...     import not_installed
    Traceback (most recent call last):
    streamguard.errors.ConfigurationError: the archive needs a package that is not installed (not_installed): install \
streamguard[serve]
    """
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"{what} needs a package that is not installed ({error.name}): install streamguard[serve]"
        ) from None
