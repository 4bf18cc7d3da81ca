"""Named attacks with their ATT&CK techniques, modelled on real attacks and not on a detector."""

from streamguard.simulate.scenarios import accounts, data, endpoint, guessing, naming
from streamguard.simulate.scenarios.context import Actor, Scenario, ScenarioContext, Step

SCENARIOS = {
    scenario.name: scenario
    for family in (guessing, accounts, data, endpoint, naming)
    for scenario in family.SCENARIOS
}
"""Name -> scenario."""

__all__ = ["SCENARIOS", "Actor", "Scenario", "ScenarioContext", "Step"]
