"""The analyst with a language model: rules decide, the model words the result, and rules do if it fails."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

import msgspec

from streamguard.alerts.incident import Incident
from streamguard.analyst import rules
from streamguard.analyst.analysis import MAX_SUMMARY, MAX_TEXT, Analysis, Claim
from streamguard.analyst.case import Case
from streamguard.analyst.facts import statements
from streamguard.analyst.language.check import RejectedError, checked
from streamguard.analyst.language.client import Client
from streamguard.analyst.language.limits import Cache, Limits
from streamguard.analyst.language.placeholders import Placeholders
from streamguard.analyst.language.prompt import PROMPT_VERSION, Messages, messages
from streamguard.analyst.language.reply import Reply
from streamguard.analyst.narrative import VERDICTS
from streamguard.risk import SEVERITIES
from streamguard.settings.schema import Analyst as AnalystSettings
from streamguard.text import shortened


class Analyst:
    """Analyses incidents by rules, and lets a language model word the result where settings name one.

    Parameters
    ----------
    settings
        Section `[analyst]`.
    client
        Asks the model; by default a `Client` of the settings.
    clock
        Seconds, for the limits.
    """

    def __init__(
        self,
        settings: AnalystSettings,
        *,
        client: Client | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._client = client or Client(settings)
        self.limits = Limits(settings.calls_per_hour, settings.tokens_per_day, clock)
        self._cache: Cache[Reply] = Cache()

    async def analyse(self, incident: Incident, updates: Sequence[Incident] = ()) -> Analysis:
        """The analysis of an incident. The verdict is that of the rules, whatever a model answers.

        Parameters
        ----------
        incident
            As last published.
        updates
            Its earlier updates, as far as they are known.
        """
        analysis = rules.analyse(incident, updates)
        if not self._settings.base_url or not self._reaches(incident.severity):
            return analysis
        made = Placeholders(
            statements(Case.of(incident, updates)), raw_command_lines=self._settings.raw_command_lines
        )
        prompt = messages(made)
        key = hashlib.sha256(msgspec.json.encode([self._settings.model, PROMPT_VERSION, prompt])).digest()
        tokens = 0
        try:
            if (reply := self._cache.get(key)) is None:
                self.limits.begin()
                text, finish, tokens = await self._asked(prompt, [line.id for line in made.lines])
                reply = checked(text, finish, made)
                self._cache.put(key, reply)
        except RejectedError as error:
            return msgspec.structs.replace(analysis, rejected=error.reason, tokens=tokens)
        return self._worded(analysis, reply, made, tokens)

    async def close(self) -> None:
        """Close the connections to the server of the model."""
        await self._client.close()

    def _reaches(self, severity: str) -> bool:
        names = list(SEVERITIES)
        return severity in names and names.index(severity) >= names.index(self._settings.min_severity)

    async def _asked(self, prompt: Messages, ids: Sequence[str]) -> tuple[str, str, int]:
        answered, tokens = False, 0
        try:
            completion = await self._client.complete(prompt, ids)
            answered, tokens = True, completion.tokens
            return completion.text, completion.finish_reason, completion.tokens
        finally:
            self.limits.end(tokens, answered=answered)

    def _worded(self, analysis: Analysis, reply: Reply, made: Placeholders, tokens: int) -> Analysis:
        disagreement = ""
        if reply.verdict != analysis.verdict:
            disagreement = f"The model says: {VERDICTS[reply.verdict].lower()}; the rules decide."
        return msgspec.structs.replace(
            analysis,
            analyst="model",
            model=self._settings.model,
            prompt_version=PROMPT_VERSION,
            disagreement=disagreement,
            summary=shortened(made.restored(reply.summary), MAX_SUMMARY),
            claims=tuple(Claim(shortened(made.restored(c.text), MAX_TEXT), c.refs) for c in reply.claims),
            tokens=tokens,
        )
