"""Why a command could not do its work, as its exit code says it; the numbers are those of sysexits.h."""

MISSING = 65
"""What should be read is not there, or not what was planned."""
UNAVAILABLE = 69
"""Kafka, Spark or Java is not to be had: try again later."""
UNEXPECTED = 70
"""An exception nobody foresaw: started again, the worker refolds from its last checkpoint."""
UNWRITABLE = 73
"""The output cannot be written."""
TAKEN = 75
"""Another worker owns the partition by now, another run writes there: start again and take what is free."""
MISFIT = 78
"""Settings, topics and what is stored do not fit, and going on would do harm: a person has to decide."""
