#!/bin/sh
# Copies the compiled kernels to a writable directory, then replaces itself with the requested command.
set -eu

# Kernels are compiled when the image is built. Numba needs write access to their directory, but the image is read-only.
# So they are copied (under 1 MB), and replace kernels that another image may have left there.
mkdir -p "$NUMBA_CACHE_DIR"
cp -R "$KERNELS/." "$NUMBA_CACHE_DIR"

job=
if [ "${1-}" = job ]; then
    job=yes
    shift
fi
case ${1-} in
executor)
    # Command of a pod that Spark starts on Kubernetes; SPARK_JAVA_OPT_0, 1, ... are the flags of the JVM, in order.
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

# A retrain as a Job: exit code 3 (no model was promoted) is reported, and is not a failure of the run.
"$@" &
trap "kill -TERM $!" TERM
code=0
wait $! || code=$?
[ $code -le 128 ] || { code=0 && wait $! || code=$?; }
[ $code -eq 3 ] || exit $code
