"""Errors that StreamGuard raises, each with the exit code of the command that it ends."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of a command; from 65 on the names and numbers are those of sysexits.h."""

    OK = 0
    """The command succeeded. `worker`, `sources`, `campaigns`, `serve`, `broker`, `simulate`, `demo`, `incidents watch`
    and a series (`--every`) also end with it after Ctrl-C."""
    FOUND = 1
    """A check found what it searches for: `replay --fail-on`, `doctor`, `audit verify`. `demo` missed an attack.
    The program that reads the output closed the pipe."""
    USAGE = 2
    """The command line is wrong."""
    NOT_PROMOTED = 3
    """`retrain` published its run, but promoted no model."""
    DATA_ERROR = 65
    """The input is missing, damaged, or differs from the plan."""
    UNAVAILABLE = 69
    """Kafka, Spark or Java cannot be reached or started, or refuses this user, or memory ran out, or a process of a run
    was killed: remove the cause, then try again."""
    SOFTWARE = 70
    """An unexpected exception occurred. A worker that is started again continues from its last checkpoint."""
    CANNOT_WRITE = 73
    """A file, a directory or the disk cannot be written, or too many files are open."""
    TEMPORARY = 75
    """Another process owns the partition, the campaigns topic, the data or output directory or the metrics port, or a
    local copy is damaged, or Kafka does not answer with records that it had: start the command again."""
    CONFIGURATION = 78
    """Settings, topics, stored state or installed packages contradict each other, or a topic does not exist: a person
    has to decide."""
    INTERRUPTED = 130
    """Ctrl-C stopped the command before it finished."""
    TERMINATED = 143
    """SIGTERM stopped `retrain` or `archive` before it finished; unfinished files are removed."""


class StreamGuardError(Exception):
    """An error that a person can act on: the message says what is wrong, where, and what to do.

    Attributes
    ----------
    exit_code
        Exit code of a command that ends with this error.
    """

    exit_code = ExitCode.SOFTWARE


class DataError(StreamGuardError):
    """The input is missing, damaged, or differs from the plan."""

    exit_code = ExitCode.DATA_ERROR


class UnavailableError(StreamGuardError):
    """A required service does not answer or does not start."""

    exit_code = ExitCode.UNAVAILABLE


class CannotWriteError(StreamGuardError):
    """A file, a directory or the disk cannot be written."""

    exit_code = ExitCode.CANNOT_WRITE


class TemporaryError(StreamGuardError):
    """Another process holds a resource that this one needs, or a restart repairs the cause."""

    exit_code = ExitCode.TEMPORARY


class ConfigurationError(StreamGuardError):
    """Settings, topics, stored state or installed packages contradict each other."""

    exit_code = ExitCode.CONFIGURATION
