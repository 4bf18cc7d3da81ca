"""Simulated security events of an invented company: habits, drift, and named attacks with separate labels."""

from streamguard.simulate.activities import ACTIVITIES
from streamguard.simulate.labelled import Campaign, SimulatedEvent
from streamguard.simulate.scenarios import ALL_SCENARIOS, MORE_SCENARIOS, SCENARIOS, Scenario
from streamguard.simulate.simulation import Simulation
from streamguard.simulate.situations import SITUATIONS

__all__ = [
    "ACTIVITIES",
    "ALL_SCENARIOS",
    "MORE_SCENARIOS",
    "SCENARIOS",
    "SITUATIONS",
    "Campaign",
    "Scenario",
    "SimulatedEvent",
    "Simulation",
]
