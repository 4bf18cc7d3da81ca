"""Further ordinary events, which a run has on request: calls of a cloud, programs of Windows, requests to a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from streamguard.simulate.scenarios.cloud import CLOUD_ADDRESS, CLUSTER_ADDRESS
from streamguard.simulate.scenarios.context import MINUTE, Actor, ScenarioContext, Step

NOTICED = 0.03
"""Share of these events with a somewhat higher upstream threat score, as in the rest of the stream."""
FAVOURITES = 7
"""Actions or programs that one person uses."""
REFUSED = 0.01
"""Share of requests that are refused."""

_CLOUD = (
    "DescribeInstances", "ListBuckets", "GetObject", "DescribeLogGroups", "GetMetricData", "DescribeAlarms",
    "ListFunctions", "DescribeSecurityGroups", "GetCallerIdentity", "DescribeVolumes", "ListTables", "PutObject",
    "StartQuery", "DescribeStacks", "UpdateFunctionCode", "RunInstances", "CreateSnapshot", "GetSecretValue",
)  # fmt: skip
_CLUSTER = (
    "pods.list", "pods.get", "pods/log.get", "deployments.list", "deployments.patch", "services.list",
    "events.list", "nodes.list", "configmaps.get", "jobs.create", "secrets.get", "pods/exec.create",
)  # fmt: skip
_WINDOWS = (
    ("explorer.exe", "explorer.exe /factory"),
    ("svchost.exe", "svchost.exe -k netsvcs -p"),
    ("rundll32.exe", "rundll32.exe printui.dll,PrintUIEntry /ge"),
    ("cmd.exe", "cmd.exe /c net use S: \\\\files-001\\share"),
    ("certutil.exe", "certutil.exe -hashfile setup.msi SHA256"),
    ("schtasks.exe", "schtasks.exe /query /fo list"),
    ("reg.exe", "reg.exe query HKCU\\Software\\Policies"),
    ("msiexec.exe", "msiexec.exe /i \\\\deploy\\agent.msi /qn"),
    ("wmic.exe", "wmic.exe os get version"),
    ("powershell.exe", "powershell.exe -File C:\\Scripts\\inventory.ps1"),
    ("gpupdate.exe", "gpupdate.exe /target:user"),
    ("taskhostw.exe", "taskhostw.exe KEYROAMING"),
    ("regsvr32.exe", "regsvr32.exe /s office-addin.dll"),
    ("wevtutil.exe", "wevtutil.exe qe Application /c:20 /f:text"),
)


class ActivityContext(ScenarioContext):
    """The accounts, and the random numbers of one day of an activity."""

    def share_of_day(self, user: int, day: int, mean: int) -> Iterator[int]:
        """Yield times within the working hours of a person on a day (UTC, epoch ms), about `mean` of them."""
        habits, calendar = self.population.habits, self.population.calendar
        first = day + int(habits.start_minute[user] - habits.utc_minutes[user]) * MINUTE
        length = int(habits.work_minutes[user]) * MINUTE
        for _ in range(self.draw.randint(mean // 2, mean + mean // 2)):
            time = first + self.draw.randrange(length)
            if calendar.in_hours(user, time):
                yield time

    def taste(self, user: int, of: Sequence[str]) -> list[str]:
        """The favourites of a person, in falling order."""
        return Random(f"{self.population.seed}:{user}:{of[0]}").sample(of, FAVOURITES)

    def favourite(self, user: int, of: Sequence[str]) -> str:
        """Draw one of a person's favourites: the first one most often."""
        rank = min(int(self.draw.expovariate(0.6)), FAVOURITES - 1)
        return self.taste(user, of)[rank]


@dataclass(frozen=True, slots=True)
class Activity:
    """A kind of ordinary events."""

    name: str
    description: str
    make: Callable[[ActivityContext, int], Iterator[Step]]
    """Yields the events of the day that begins at a time (epoch ms), in any order."""


def cloud(context: ActivityContext, day: int) -> Iterator[Step]:
    """Developers and administrators call the interface of a cloud: each some actions, and some of these often."""
    for user in _accounts(context, "developer", "admin"):
        yield from _requests(context, user, day, _CLOUD, CLOUD_ADDRESS, mean=12)


def kubernetes(context: ActivityContext, day: int) -> Iterator[Step]:
    """Developers and administrators work with a cluster; a command in a pod is rare, but it happens."""
    for user in _accounts(context, "developer", "admin"):
        yield from _requests(context, user, day, _CLUSTER, CLUSTER_ADDRESS, mean=8)


def windows(context: ActivityContext, day: int) -> Iterator[Step]:
    """Programs of Windows start on the machines of people, also such as attackers use, with ordinary arguments."""
    names = [name for name, _ in _WINDOWS]
    commands = dict(_WINDOWS)
    for user in _accounts(context, "office", "finance", "sales", "support", "admin"):
        for time in context.share_of_day(user, day, mean=10):
            actor = Actor(context, user, context.own_place(user, time), noticed=NOTICED)
            name = context.favourite(user, names)
            yield actor.run(time, name, commands[name])


def _accounts(context: ActivityContext, *kinds: str) -> list[int]:
    return context.population.habits.of_kind(*kinds)


def _requests(
    context: ActivityContext, user: int, day: int, actions: Sequence[str], target: str, mean: int
) -> Iterator[Step]:
    for time in context.share_of_day(user, day, mean):
        actor = Actor(context, user, context.own_place(user, time), noticed=NOTICED)
        status = "blocked" if context.draw.random() < REFUSED else "success"
        yield actor.act(time, context.favourite(user, actions), target, status)


ACTIVITIES = {
    activity.name: activity
    for activity in (
        Activity("cloud", "Developers and administrators call the interface of a cloud.", cloud),
        Activity("windows", "Programs of Windows start, also those that attackers use.", windows),
        Activity("kubernetes", "Developers and administrators send requests to a cluster.", kubernetes),
    )
}
"""Name -> activity."""
