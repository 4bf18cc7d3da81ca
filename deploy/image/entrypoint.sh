#!/bin/sh
# Starts what the image is asked for, in its own place, with compiled kernels where they can be written.
set -eu

# Kernels were compiled when the image was built. Numba wants to write where it reads them, the image is read-only:
# so they are copied (under 1 MB), over those that another image may have left there.
mkdir -p "$NUMBA_CACHE_DIR"
cp -R "$KERNELS/." "$NUMBA_CACHE_DIR"

job=
if [ "${1-}" = job ]; then
    job=yes
    shift
fi
case ${1-} in
executor)
    # What Spark asks of a pod that it starts on Kubernetes; SPARK_JAVA_OPT_0, 1, ... are the JVM's flags, in order.
    k=0
    set --
    while option=$(printenv "SPARK_JAVA_OPT_$k"); do
        set -- "$@" "$option"
        k=$((k + 1))
    done
    exec "$SPARK_JAVA/bin/java" "$@" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
        -cp "${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$SPARK_HOME/jars/*" \
        org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
        --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
        --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
        --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
spark-submit)
    JAVA_HOME=$SPARK_JAVA
    export JAVA_HOME
    ;;
esac
[ "$job" ] || exec "$@"

# A retrain as a Job: a model that the gate has refused (3) is told, and is no failure of the run.
"$@" &
trap "kill -TERM $!" TERM
code=0
wait $! || code=$?
[ $code -le 128 ] || { code=0 && wait $! || code=$?; }
[ $code -eq 3 ] || exit $code
