"""Quix Streams on a topic: one state get and set per event and no other work; prints its CPU as JSON.

`bench.backlog` runs it in a separate environment: quix_state.py BOOTSTRAP TOPIC EVENTS DIRECTORY json|bytes
(json is the default deserializer of Quix Streams)
"""

import json
import sys
import time
import uuid

from quixstreams import Application

bootstrap, topic, events, directory, values = sys.argv[1:]
last = int(events)
first = last // 10  # the program starts and fills its buffers before this event
seen, begun = 0, 0.0

app = Application(
    broker_address=bootstrap,
    consumer_group=f"quix-{uuid.uuid4().hex[:8]}",
    auto_offset_reset="earliest",
    state_dir=directory,
    loglevel="ERROR",
)


def count(_, state):
    global seen, begun
    if seen == first:
        begun = time.process_time()
    state.set("seen", state.get("seen", 0) + 1)
    seen += 1


frame = app.dataframe(app.topic(topic, key_deserializer="bytes", value_deserializer=values))
frame.update(count, stateful=True)
app.run(count=last)  # returns when all is committed, because state is written at commits, not at each event
print(json.dumps({"us": (time.process_time() - begun) / (seen - first) * 1e6}), flush=True)
