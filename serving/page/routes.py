"""All routes of the page: they show what the query service answers, and nothing else."""

from __future__ import annotations

from streamguard.serving.page import acting, bulk, incidents, oidc, overview, privacy, session, sources

ROUTES = (
    *incidents.ROUTES, *acting.ROUTES, *bulk.ROUTES, *overview.ROUTES, *sources.ROUTES, *privacy.ROUTES,
    *session.ROUTES, *oidc.ROUTES,
)  # fmt: skip
"""All routes of the page."""
problem_page = session.problem_page
