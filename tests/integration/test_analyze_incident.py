"""`streamguard analyze --incident` reads the alerts topic of a real Kafka."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from streamguard.analyst import rules
from streamguard.analyst.analysis import decode
from streamguard.cli.main import main
from tests.campaign_site import CampaignSite
from tests.unit.test_campaigns import NOON, lone

pytestmark = pytest.mark.integration


def test_incident_of_the_topic_is_analysed_with_its_updates(kafka: str, tmp_path: Path) -> None:
    site = CampaignSite(kafka, tmp_path)
    first = lone("ann", NOON)
    last = msgspec.structs.replace(first, count=first.count + 1)
    site.publish([first, b"damaged", lone("ben", NOON), last])
    arguments = ["analyze", "--config", str(tmp_path / "streamguard.toml"), "--json", "--incident"]
    result = CliRunner().invoke(main, [*arguments, first.id])
    assert result.exit_code == 0, result.output
    found, expected = decode(result.stdout.encode()), rules.analyse(last, (first,))
    assert (found.incident_id, found.revision) == (first.id, last.count)
    assert (found.verdict, found.claims) == (expected.verdict, expected.claims)
    assert "the record is passed over, because it is not valid under the schema" in result.stderr
    assert "1 record passed over" in result.stderr
    missing = CliRunner().invoke(main, [*arguments, "1-2-3"])
    assert missing.exit_code == 65, missing.output
    site.delete_topic("alerts")
    gone = CliRunner().invoke(main, [*arguments, first.id])
    assert gone.exit_code == 78, gone.output
    assert "does not exist" in gone.stderr
