"""Attacks on a cloud account and on a cluster from the usual address: only the actions are unusual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamguard.simulate.scenarios.context import Actor, Scenario, ScenarioContext, Step

CLOUD_ADDRESS = "198.51.100.40"
"""Address of the cloud's interface, of a documentation range (RFC 5737)."""
PAUSE_MS = 25_000
"""Median time between two calls of a person at a console."""
CLUSTER_ADDRESS = "10.220.0.1"
"""Address of the cluster's interface."""
CLUSTER_PAUSE_MS = 15_000
"""Median time between two requests of a person at a terminal."""

_LOOK = (
    "GetCallerIdentity",
    "ListUsers",
    "ListRoles",
    "ListAttachedUserPolicies",
    "DescribeTrails",
    "GetAccountSummary",
)
_BLIND = (
    "StopLogging",
    "UpdateTrail",
    "PutEventSelectors",
    "DeleteTrail",
    "DeleteFlowLogs",
    "DeleteDetector",
)
_PERSIST = (
    "CreateUser", "CreateAccessKey", "AttachUserPolicy", "CreateLoginProfile", "PutUserPolicy",
    "UpdateAssumeRolePolicy", "DeactivateMFADevice", "CreateAccessKey",
)  # fmt: skip
_SHARE = ("CreateSnapshot", "ModifySnapshotAttribute", "ModifyImageAttribute", "ModifyDBSnapshotAttribute")
_READ = ("GetSecretValue", "ListSecrets", "GetParametersByPath", "Decrypt")


def cloud_blinding(context: ScenarioContext, start: int) -> Iterator[Step]:
    """The trail is stopped and deleted, and with it the other logs, before anything else is done."""
    yield from _session(context, start, [*_some(context, _LOOK, 3), *_BLIND])


def cloud_persistence(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Users, keys and policies are created, so that the account stays open after its password has changed."""
    yield from _session(context, start, [*_some(context, _LOOK, 3), *_PERSIST])


def cloud_snapshots(context: ScenarioContext, start: int) -> Iterator[Step]:
    """Secrets are read, and snapshots of disks and databases are shared with a foreign account."""
    shared = [action for action in _SHARE for _ in range(context.draw.randint(1, 4))]
    yield from _session(context, start, [*_some(context, _LOOK, 2), *_READ * 2, *shared])


def cluster_takeover(context: ScenarioContext, start: int) -> Iterator[Step]:
    """A stolen configuration of a developer lists all secrets, enters pods, and binds itself to the highest role."""
    draw = context.draw
    user = context.pick("developer")
    time = context.next_working_time(user, start)
    actor = Actor(context, user, context.own_place(user, time), noticed=0.15)
    actions = ["selfsubjectrulesreviews.create", "secrets.list", *["secrets.get"] * draw.randint(3, 10)]
    actions += ["pods/exec.create"] * draw.randint(3, 12)
    actions += [
        "serviceaccounts.create",
        "clusterroles.create",
        "clusterrolebindings.create",
        "daemonsets.create",
    ]
    for action in actions:
        status = "blocked" if draw.random() < 0.1 else "success"
        yield actor.act(time, action, CLUSTER_ADDRESS, status)
        time += context.gap(CLUSTER_PAUSE_MS)


def _some(context: ScenarioContext, actions: Sequence[str], count: int) -> list[str]:
    return context.draw.sample(actions, count)


def _session(context: ScenarioContext, start: int, actions: Sequence[str]) -> Iterator[Step]:
    """Yield the calls one after the other, from the desk of an administrator in working hours; some are refused."""
    draw = context.draw
    user = context.pick("admin")
    time = context.next_working_time(user, start)
    actor = Actor(context, user, context.own_place(user, time), noticed=0.1)
    for action in actions:
        status = "blocked" if draw.random() < 0.08 else "success"
        yield actor.act(time, action, CLOUD_ADDRESS, status)
        time += context.gap(PAUSE_MS)


SCENARIOS = (
    Scenario(
        "cloud_blinding", "T1562.008", "The cloud's trail and logs are switched off.", False, cloud_blinding
    ),
    Scenario(
        "cloud_persistence", "T1098.001", "Keys, users and policies are created.", False, cloud_persistence
    ),
    Scenario(
        "cloud_snapshots", "T1537", "Snapshots are shared with a foreign account.", False, cloud_snapshots
    ),
    Scenario(
        "cluster_takeover",
        "T1609",
        "Commands in pods, secrets, and a new cluster role.",
        False,
        cluster_takeover,
    ),
)
