"""Named attacks with their ATT&CK techniques, modelled on real attacks and not on a detector."""

from streamguard.simulate.scenarios import (
    accounts,
    cloud,
    data,
    endpoint,
    guessing,
    naming,
    windows,
)
from streamguard.simulate.scenarios.context import Actor, Scenario, ScenarioContext, Step

SCENARIOS = {
    scenario.name: scenario
    for family in (guessing, accounts, data, endpoint, naming)
    for scenario in family.SCENARIOS
}
"""Name -> scenario."""

MORE_SCENARIOS = {scenario.name: scenario for family in (cloud, windows) for scenario in family.SCENARIOS}
"""Further scenarios, which are not among `--attack all`, so that the streams of earlier seeds stay as they are."""

ALL_SCENARIOS = SCENARIOS | MORE_SCENARIOS

__all__ = ["ALL_SCENARIOS", "MORE_SCENARIOS", "SCENARIOS", "Actor", "Scenario", "ScenarioContext", "Step"]
