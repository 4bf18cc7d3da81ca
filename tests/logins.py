"""A month of logins of a few users with two attacks, as rows and as files."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

COLUMNS = (
    "timestamp",
    "user",
    "source_ip",
    "event_type",
    "status",
    "failure_reason",
    "is_attack",
    "attack_id",
)
START = 1_704_096_000_000
HOUR = 3_600_000
DAY = 24 * HOUR
ATTACKER = "203.0.113.9"


def rows(days: int = 30, users: int = 8) -> list[dict[str, Any]]:
    """Logins in order of time; on each of the last two days an attacker guesses a hundred passwords."""
    draw = random.Random(5)
    out = []
    for day in range(days):
        for number in range(users):
            for hour in (8, 10, 13, 16):
                failed = draw.random() < 0.04
                moment = START + day * DAY + hour * HOUR + draw.randrange(HOUR)
                source = f"10.0.{number}.{draw.choice((1, 1, 1, 2))}"
                out.append(_row(moment, f"user{number}", source, failed, 0))
    for campaign, (day, user) in enumerate(((days - 2, "user1"), (days - 1, "user2")), 1):
        begin = START + day * DAY + 3 * HOUR
        out += [_row(begin + 2000 * k, user, ATTACKER, k < 99, campaign) for k in range(100)]
    return sorted(out, key=lambda row: row["timestamp"])


def _row(moment: int, user: str, source: str, failed: bool, campaign: int) -> dict[str, Any]:
    return {
        "timestamp": moment,
        "user": user,
        "source_ip": source,
        "event_type": "login",
        "status": "failure" if failed else "success",
        "failure_reason": "wrong password" if failed else "",
        "is_attack": int(campaign > 0),
        "attack_id": f"c{campaign}" if campaign else "",
    }


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the rows as events of a topic, with ids and without labels."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            event = {key: row[key] for key in COLUMNS[:6] if row[key] != ""}
            event["status"] = "failed" if row["status"] == "failure" else row["status"]
            file.write(json.dumps({"event_id": f"e{number}", **event}) + "\n")
    return path


def write_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            if row["is_attack"]:
                file.write(json.dumps({"event_id": f"e{number}", "campaign": row["attack_id"]}) + "\n")
    return path
