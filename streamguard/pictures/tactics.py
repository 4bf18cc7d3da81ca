"""The ATT&CK techniques of our patterns by tactic, for the matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping

TACTICS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Initial access", (("T1078", "Valid accounts"),)),
    ("Execution", (("T1059.001", "PowerShell"),)),
    ("Defense evasion", (("T1070.001", "Clear Windows event logs"), ("T1218", "System binary proxy execution"),
                         ("T1562", "Impair defenses"))),
    ("Credential access", (("T1003", "OS credential dumping"), ("T1110", "Brute force"),
                           ("T1110.001", "Password guessing"), ("T1110.003", "Password spraying"),
                           ("T1110.004", "Credential stuffing"))),
    ("Lateral movement", (("T1021", "Remote services"),)),
    ("Collection", (("T1039", "Data from network shared drive"),)),
    ("Command and control", (("T1071.004", "DNS"), ("T1568.002", "Domain generation algorithms"))),
    ("Exfiltration", (("T1048", "Exfiltration over alternative protocol"),)),
    ("Impact", (("T1486", "Data encrypted for impact"), ("T1490", "Inhibit system recovery"))),
)  # fmt: skip
"""(tactic, ((technique, name), ...)); a test compares the techniques with those of the patterns."""


def rows(
    counts: Mapping[str, int], href: Callable[[str], str]
) -> list[tuple[str, list[tuple[str, str, int, str]]]]:
    """The matrix for the macro: by tactic, each technique with its name, its number of incidents, and their address.

    Parameters
    ----------
    counts
        Number of incidents by technique; techniques without incidents may be missing.
    href
        From a technique to the address of its incidents.
    """
    return [
        (tactic, [(one, name, counts.get(one, 0), href(one)) for one, name in cells])
        for tactic, cells in TACTICS
    ]
