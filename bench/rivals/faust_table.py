"""Stock Faust on a topic: one RocksDB table get and set per event, or no work at all; prints its CPU as JSON.

`bench.backlog` runs it: faust_table.py BOOTSTRAP TOPIC PARTITIONS EVENTS DIRECTORY table|empty
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid

import faust

bootstrap, topic, partitions, events, directory, mode = sys.argv[1:]
last = int(events)
first = last // 10  # the worker starts and fills its buffers before this event

app = faust.App(
    f"faust-{mode}-{uuid.uuid4().hex[:8]}",
    broker=f"kafka://{bootstrap}",
    datadir=directory,
    store="rocksdb://",
    web_enabled=False,
    topic_partitions=int(partitions),
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
)
records = app.topic(topic, key_type=bytes, value_type=bytes)
table = app.Table("seen", partitions=int(partitions), default=int) if mode == "table" else None


@app.agent(records)
async def count(stream):  # type: ignore[no-untyped-def]
    seen, begun = 0, 0.0
    async for event in stream.events():
        if seen == first:
            begun = time.process_time()
        if table is not None:
            table[event.key] = table[event.key] + 1
        seen += 1
        if seen == last:
            cpu = time.process_time() - begun
            print(json.dumps({"us": cpu / (last - first) * 1e6}), flush=True)
            os._exit(0)


worker = faust.Worker(app, loglevel="ERROR", quiet=True, redirect_stdouts=False)
worker.spinner = None  # the spinner would write to standard output
worker.execute_from_commandline()
