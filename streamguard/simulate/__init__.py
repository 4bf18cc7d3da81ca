"""An invented company's security events: habits, drift and named attacks with labels kept apart."""

from streamguard.simulate.scenarios import SCENARIOS, Scenario
from streamguard.simulate.simulation import Campaign, SimulatedEvent, Simulation

__all__ = ["SCENARIOS", "Campaign", "Scenario", "SimulatedEvent", "Simulation"]
