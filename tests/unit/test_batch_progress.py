"""Progress of folding: partitions, speed, and the remaining time."""

from __future__ import annotations

from streamguard.batch.folded_history import _Progress
from streamguard.batch.source.offset_range import OffsetRange
from streamguard.testing.clock import ManualClock


def test_each_partition_is_reported_with_speed_and_estimate() -> None:
    clock, said = ManualClock(), []
    ranges = [OffsetRange(0, 0, 3000), OffsetRange(1, 500, 1500), OffsetRange(2, 7, 7)]
    progress = _Progress(ranges, said.append, clock)
    clock.advance(1)
    progress(ranges[1])
    clock.advance(1)
    progress(ranges[2])
    clock.advance(2)
    progress(ranges[0])
    assert [line.strip() for line in said] == [
        "partition 1: offsets 500 to 1,500 folded (1 of 3, 1,000 offsets a second, about 3 s left)",
        "partition 2: offsets 7 to 7 folded (2 of 3, 500 offsets a second, about 6 s left)",
        "partition 0: offsets 0 to 3,000 folded (3 of 3, 1,000 offsets a second, about 0 s left)",
    ]
