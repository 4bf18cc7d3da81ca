"""Simulated security events of an invented company: habits, drift, and named attacks with separate labels."""

from streamguard.simulate.scenarios import SCENARIOS, Scenario
from streamguard.simulate.simulation import Campaign, SimulatedEvent, Simulation

__all__ = ["SCENARIOS", "Campaign", "Scenario", "SimulatedEvent", "Simulation"]
