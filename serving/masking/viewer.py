"""What the caller of a request may see, and the record of every name that is shown to the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn, Protocol, TypeVar

import msgspec

from streamguard.errors import DataError
from streamguard.serving.audit.record import AuditError
from streamguard.serving.masking.mask import Mask
from streamguard.serving.masking.pseudonyms import Pseudonyms, is_pseudonym
from streamguard.serving.masking.roles import Right, Role, may
from streamguard.serving.query.filters import IncidentFilter
from streamguard.serving.query.unmasking import NameQueries

T = TypeVar("T")


class MaskedError(DataError):
    """The answer would name people, and the caller sees pseudonyms."""


class Recorder(Protocol):
    """Keeps the audit log."""

    def record(
        self, by: str, role: str, what: str, subject: str = "", detail: str = "", *, repeated: bool = False
    ) -> None:
        """Keep a record, or raise `AuditError` if it cannot be kept.

        Parameters
        ----------
        by, role
            Who, and with which role.
        what
            The operation.
        subject
            Id of the incident or of the request, or the pseudonym of the user, that it was about.
        detail
            What came of it, from a closed set.
        repeated
            Whether a page asks for this by itself, again and again.
        """


class Privacy(NamedTuple):
    """What masking needs.

    Attributes
    ----------
    pseudonyms
        Pseudonyms of the deployment.
    audit
        The audit log.
    """

    pseudonyms: Pseudonyms
    audit: Recorder


class Viewer:
    """One request of a caller.

    Parameters
    ----------
    privacy
        Pseudonyms and the audit log; None: a server without them shows names to nobody.
    names
        Which incidents are unmasked for whom.
    name, role
        Who asks.
    what
        The operation, as the audit log names it.
    repeated
        Whether a page asks for this by itself, again and again.
    """

    def __init__(
        self,
        privacy: Privacy | None,
        names: NameQueries,
        name: str,
        role: Role,
        what: str,
        *,
        repeated: bool = False,
    ) -> None:
        self.name, self.role = name, role
        self.masked = not may(role, "see_people")
        self._privacy, self._names, self._what = privacy, names, what
        self._repeated = repeated
        self._mask = Mask(privacy.pseudonyms) if privacy is not None else None
        self._recorded: set[str] = set()

    def may(self, right: Right) -> bool:
        """Whether the caller has a right."""
        return may(self.role, right)

    def shown(self, answer: T) -> T:
        """An answer as the caller sees it: masked, or as it is after `read`."""
        if not self.masked:
            return answer
        if self._mask is None:
            self._refuse()
        return self._mask.of(answer)

    def read(self, subject: str = "", detail: str = "") -> None:
        """Record that the caller sees names, once for each subject of a request; before the answer is made.

        Raises
        ------
        AuditError
            If the record cannot be kept.
        """
        if subject in self._recorded:
            return
        self.record(subject, detail)
        self._recorded.add(subject)

    def record(self, subject: str = "", detail: str = "") -> None:
        """Record what the caller does."""
        if self._privacy is None:
            self._refuse()
        self._privacy.audit.record(self.name, self.role, self._what, subject, detail, repeated=self._repeated)

    def listed(self, make: Callable[[], T], subject: str = "") -> T:
        """An answer about many people, or about the campaign of the subject, as the caller sees it."""
        if not self.masked:
            self.read(subject)
        return self.shown(make())

    def of_incident(self, id: str, make: Callable[[], T]) -> T:
        """An answer about one incident, as the caller sees it."""
        if not self.sees_incident(id):
            return self.shown(make())
        self.read(id)
        return make()

    def sees_incident(self, id: str) -> bool:
        """Whether the caller sees the names of an incident."""
        return not self.masked or self._names.shown_of(id, self.name)

    def read_incident(self, id: str) -> None:
        """Record that the caller sees the names of an incident.

        Raises
        ------
        MaskedError
            If the caller sees pseudonyms.
        """
        if not self.sees_incident(id):
            raise MaskedError(
                f"this names people, and the role {self.role} sees pseudonyms: ask to unmask the incident"
            )
        self.read(id)

    def read_user(self, name: str) -> None:
        """Record that the caller sees the profile of a user.

        Raises
        ------
        MaskedError
            If the caller sees pseudonyms, and no incident of this user is unmasked for the caller. It is raised whether
            or not there is such a user.
        """
        if self.masked and not self._names.shown_user(name, self.name):
            raise MaskedError(
                f"a profile is opened from an incident that is unmasked, and the role {self.role} sees pseudonyms: ask "
                "to unmask an incident of this user"
            )
        self.read(self.pseudonym("user", name))

    def read_people(self) -> None:
        """Record that the caller sees an answer about many people.

        Raises
        ------
        MaskedError
            If the caller sees pseudonyms.
        """
        if self.masked:
            raise MaskedError(
                f"this ranks or describes people, and the role {self.role} sees pseudonyms; it needs one of the roles "
                "investigator and admin"
            )
        self.read()

    def wanted(self, filter: IncidentFilter) -> IncidentFilter:
        """A filter as it applies for the caller: without names, one finds people by their pseudonyms only.

        Raises
        ------
        MaskedError
            If the caller sees pseudonyms and searches for words.
        """
        if not self.masked:
            own = tuple(one for one in filter.entity if is_pseudonym(one))
            return msgspec.structs.replace(filter, pseudonym=own)
        if filter.text or filter.word:
            raise MaskedError(
                f"a search for words finds names, and the role {self.role} sees pseudonyms: filter by pseudonym, "
                "pattern, technique or severity instead"
            )
        return msgspec.structs.replace(filter, entity=(), pseudonym=filter.entity)

    def pseudonym(self, kind: str, name: str) -> str:
        """The pseudonym of an entity."""
        if self._privacy is None:
            self._refuse()
        return self._privacy.pseudonyms.of(kind, name)

    def _refuse(self) -> NoReturn:
        raise AuditError("this server has no key for pseudonyms and no audit log, so it shows no incident")
