"""The prompt: instructions and facts in words of StreamGuard, in which placeholders stand for texts of the log."""

from __future__ import annotations

from typing import Any

import msgspec

from streamguard.analyst.analysis import Verdict
from streamguard.analyst.language.placeholders import Placeholders
from streamguard.analyst.language.reply import MAX_SENTENCES, json_schema

PROMPT_VERSION = "1"
"""Changes with every change of the words below."""

_VERDICTS: dict[Verdict, str] = {
    "true_positive": "an attack",
    "suspicious": "a person should look at it",
    "benign": "ordinary work",
    "insufficient_data": "the facts do not suffice",
}
_INSTRUCTIONS = f"""You explain an incident of a security monitor to an analyst.
Use only the facts below. Every fact begins with its id. Names such as USER1 stand for values that you do not need.
Write plain English without markup, links or quotation marks. Use no number, name or technique that is not in the facts.
Write a summary of at most three sentences, and at most {MAX_SENTENCES} claims. Each claim cites the ids of its facts.
The verdict is one of: {"; ".join(f"{verdict} ({words})" for verdict, words in _VERDICTS.items())}.
Answer with one JSON object and nothing else. Its JSON Schema is:
{msgspec.json.encode(json_schema()).decode()}"""

Messages = list[dict[str, Any]]


def messages(placeholders: Placeholders) -> Messages:
    """The messages of a chat: what to do, then the facts and what their placeholders are."""
    facts = "\n".join(f"{line.id}: {line.text}" for line in placeholders.lines)
    glosses = "\n".join(f"{name} is {gloss}." for name, gloss in placeholders.glosses.items())
    return [
        {"role": "system", "content": _INSTRUCTIONS},
        {"role": "user", "content": f"Facts:\n{facts}\n\nPlaceholders:\n{glosses}\n"},
    ]
