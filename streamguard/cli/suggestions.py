"""Names that a person may have meant: of commands, and of values that options know."""

from __future__ import annotations

from collections.abc import Iterable

import click

SIMILAR = 0.6
"""Share of two names that has to be equal for one to be suggested, as `difflib` measures it."""
MAX_SUGGESTED = 3
EXIT_CODES = "Exit codes"
"""How the list of exit codes begins in a help text."""
MAX_COMPARED = 100
"""Characters of a name that are compared; a longer one is not a slip of the hand."""


def similar(name: str, known: Iterable[str], most: int = MAX_SUGGESTED) -> list[str]:
    """The known names that are most like a name, the most similar first; capitals do not count.

    Examples
    --------
    >>> similar("incidnts", ["incidents", "users"]), similar("T1111", ["t1110"]), similar("x" * 200, ["x" * 200])
    (['incidents'], ['t1110'], [])
    """
    if len(name) > MAX_COMPARED:
        return []
    import difflib  # a command that is written correctly does without it

    names = {one.lower(): one for one in known}
    return [names[one] for one in difflib.get_close_matches(name.lower(), names, most, SIMILAR)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the most similar names, to be added to an error; empty without any.

    Examples
    --------
    >>> did_you_mean("lst", ["list", "show"]), did_you_mean("quit", ["list", "show"])
    (" Did you mean 'list'?", '')
    """
    found = similar(name, known)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


class SuggestingGroup(click.Group):
    """A click group that suggests a command for one that does not exist, and whose commands share its exit codes."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; the help of one that lists no exit codes says where they are."""
        found = super().get_command(ctx, cmd_name)
        if found is not None and EXIT_CODES in (self.help or "") and EXIT_CODES not in (found.help or ""):
            found.epilog = f"{EXIT_CODES}: see `streamguard {ctx.info_name} --help`."
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; see click."""
        name = args[0]
        if not ctx.resilient_parsing and name.isprintable() and name[:1] != "-":
            known = self.list_commands(ctx)
            if name not in known and self.get_command(ctx, name) is None:
                ctx.fail(f"No such command {name[:MAX_COMPARED]!r}.{did_you_mean(name, known)}")
        return super().resolve_command(ctx, args)
