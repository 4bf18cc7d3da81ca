"""The serving layer: incidents, profiles and batch results behind one API and one page."""
