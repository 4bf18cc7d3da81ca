"""Named attacks, each with its ATT&CK technique; how they look is taken from such attacks, not from any detector."""

from streamguard.simulate.scenarios import accounts, data, endpoint, guessing, naming
from streamguard.simulate.scenarios.stage import Actor, Scenario, Stage, Step

SCENARIOS = {
    scenario.name: scenario
    for family in (guessing, accounts, data, endpoint, naming)
    for scenario in family.SCENARIOS
}
"""Name -> scenario."""

__all__ = ["SCENARIOS", "Actor", "Scenario", "Stage", "Step"]
