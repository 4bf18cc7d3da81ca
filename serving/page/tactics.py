"""The ATT&CK techniques of our patterns by tactic, for the matrix on the page."""

from __future__ import annotations

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
