"""Why a person cannot sign in with the provider: each error has the status and the title of the page that says so."""

from __future__ import annotations

from streamguard.errors import StreamGuardError, UnavailableError


class SignInError(StreamGuardError):
    """The sign-in was refused: it began elsewhere or too long ago, or the provider's answer is not to be believed."""

    status = 400
    title = "The sign-in was refused"


class NoRoleError(SignInError):
    """The provider knows the person, but no value of the person's claim gives a role here."""

    status = 403
    title = "You have no role here"


class ProviderError(UnavailableError):
    """The provider does not answer, or not as the settings expect."""

    status = 503
    title = "The sign-in provider cannot be used"
