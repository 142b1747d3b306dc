#!/bin/sh
# Runs one process of a local Flink cluster, from the jars that fetch.sh put into FOLDER; further arguments go to it.
set -eu
usage="usage: run.sh jobmanager|taskmanager|jobserver FOLDER [ARGUMENT...]"
role=${1:?$usage}
jars=${2:?$usage}
shift 2
conf=$(cd "$(dirname "$0")" && pwd)/conf
case $role in
jobmanager) set -- org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$conf" "$@" ;;
taskmanager) set -- org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir "$conf" "$@" ;;
jobserver) set -- org.apache.beam.runners.flink.FlinkJobServerDriver "$@" ;;
*) echo "$usage" >&2 && exit 2 ;;
esac
# Flink 1.19 serialises by reflection what Java 17 keeps closed.
opens=
for package in lang lang.reflect io net nio text time util util.concurrent util.concurrent.atomic; do
    opens="$opens --add-opens=java.base/java.$package=ALL-UNNAMED"
done
# Ten seconds for the remoting to start, too few on a busy machine, is in no option of Flink's.
# shellcheck disable=SC2086
exec java -Xmx1g -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dpekko.remote.classic.startup-timeout=300s $opens -cp "$jars/*" "$@"
