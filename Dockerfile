# StreamGuard's images. `docker build --target worker .` builds the image that scores, creates topics and simulates; it
# contains neither Java nor Spark. `--target serve` builds the image of the API and the page, `--target retrain` the image
# that trains on Spark. All run as an unprivileged user, and their root file system can be read-only: they write to
# /var/lib/streamguard (volumes) and /tmp.

ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS base
ENV PATH=/opt/streamguard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/opt/streamguard/cache \
    KERNELS=/opt/streamguard/kernels \
    NUMBA_CACHE_DIR=/tmp/kernels \
    NUMBA_CPU_NAME=generic
# generic: kernels run on every machine of the architecture. Kernels that are compiled for one machine score a batch with
# a forest a third faster and a single event 3 % faster, but would have to be compiled at each start.

# Common part of all images: base dependencies and StreamGuard. File times are whole seconds, because registries store
# whole seconds, and numba and Java use them to recognise the source of a cached file.
FROM base AS packages
ARG SOURCE_DATE_EPOCH=1700000000
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml ./
COPY deploy/locks deploy/locks
RUN python -m venv --without-pip /opt/streamguard
# Each package has the digest that was tested.
RUN pip --python /opt/streamguard/bin/python install --require-hashes --no-deps -r deploy/locks/worker.txt \
    && find /opt/streamguard -type d -name tests -prune -exec rm -r {} + \
    && find /opt/streamguard -name libllvmlite.so -exec strip --strip-unneeded {} +
COPY README.md LICENSE ./
COPY streamguard streamguard
COPY agents agents
COPY batch batch
COPY serving serving
COPY deploy/image/build.txt deploy/image/
RUN pip install --require-hashes --no-deps -r deploy/image/build.txt \
    && pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/streamguard/bin/python install --no-deps --no-index dist/*.whl

FROM packages AS worker-files
COPY deploy/image deploy/image
RUN find /opt/streamguard -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} + \
    && python -m compileall -q /opt/streamguard/lib \
    && NUMBA_CACHE_DIR=$KERNELS python deploy/image/kernels.py

FROM packages AS serve-files
RUN pip --python /opt/streamguard/bin/python install --require-hashes --no-deps -r deploy/locks/serve.txt \
    && find /opt/streamguard -type d -name tests -prune -exec rm -r {} +
COPY deploy/image deploy/image
RUN find /opt/streamguard -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} + \
    && python -m compileall -q /opt/streamguard/lib \
    && NUMBA_CACHE_DIR=$KERNELS python deploy/image/kernels.py

FROM packages AS retrain-files
RUN pip --python /opt/streamguard/bin/python install --require-hashes --no-deps -r deploy/locks/retrain.txt \
    && find /opt/streamguard -type d -name tests -prune -exec rm -r {} +
COPY deploy/image deploy/image
# A small retrain compiles the kernels. A run with its own Kafka downloads the connector's jars and creates the archive
# of Spark's classes.
RUN find /opt/streamguard -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} + \
    && python -m compileall -q /opt/streamguard/lib \
    && cd / && export NUMBA_CACHE_DIR=$KERNELS \
    && python /build/deploy/image/kernels.py \
    && streamguard simulate --days 2 --output /tmp/events.jsonl \
    && streamguard retrain --engine local --input /tmp/events.jsonl --output /tmp/runs \
    && python -m streamguard.batch.engines.warm \
    && rm -r /tmp/events.jsonl /tmp/runs "$XDG_CACHE_HOME"/streamguard/kafka-* \
    && python /build/deploy/image/spark_links.py /opt/streamguard

FROM base AS runtime
LABEL org.opencontainers.image.licenses=Apache-2.0
RUN groupadd --gid 10001 streamguard \
    && useradd --uid 10001 --gid streamguard --no-create-home --home-dir /tmp streamguard \
    && install --directory --owner streamguard --group streamguard \
    /var/lib/streamguard /var/lib/streamguard/state /var/lib/streamguard/models /var/lib/streamguard/runs \
    /var/lib/streamguard/serve
ENV STREAMGUARD_WORKER_DATA_DIR=/var/lib/streamguard/state \
    STREAMGUARD_MODELS_REGISTRY=/var/lib/streamguard/models \
    STREAMGUARD_BATCH_OUTPUT=/var/lib/streamguard/runs
WORKDIR /var/lib/streamguard
COPY --chmod=755 deploy/image/entrypoint.sh /usr/local/bin/entrypoint
USER 10001:10001
ENTRYPOINT ["entrypoint"]

FROM runtime AS retrain
LABEL org.opencontainers.image.title="StreamGuard retrain"
ENV SPARK_HOME=/opt/streamguard/spark \
    SPARK_JAVA=/opt/streamguard/java \
    PYSPARK_PYTHON=/opt/streamguard/bin/python
COPY --from=retrain-files /opt/streamguard /opt/streamguard
CMD ["streamguard", "retrain", "--every", "1h"]

FROM runtime AS serve
LABEL org.opencontainers.image.title="StreamGuard server"
# The keys are beside the projection and not in it, because the projection may be deleted at any time.
ENV STREAMGUARD_SERVE_HOST=0.0.0.0 \
    STREAMGUARD_SERVE_METRICS_HOST=0.0.0.0 \
    STREAMGUARD_SERVE_DATA_DIR=/var/lib/streamguard/serve/projection \
    STREAMGUARD_SERVE_KEYS_FILE=/var/lib/streamguard/serve/keys.json
COPY --from=serve-files /opt/streamguard /opt/streamguard
EXPOSE 8080 9468
CMD ["streamguard", "serve"]

FROM runtime AS worker
LABEL org.opencontainers.image.title="StreamGuard worker"
ENV STREAMGUARD_WORKER_METRICS_HOST=0.0.0.0
COPY --from=worker-files /opt/streamguard /opt/streamguard
EXPOSE 9464
CMD ["streamguard", "worker"]
