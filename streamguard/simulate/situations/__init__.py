"""Situations: benign things that happen to a company and that a naive detector takes for attacks."""

from streamguard.simulate.situations import absence, accounts, collection, network, newcomers, outage
from streamguard.simulate.situations.context import Effect, Intrusion, Situation, SituationContext

SITUATIONS = {
    situation.name: situation
    for family in (newcomers, outage, network, absence, accounts, collection)
    for situation in family.SITUATIONS
}
"""Name -> situation."""

__all__ = ["SITUATIONS", "Effect", "Intrusion", "Situation", "SituationContext"]
