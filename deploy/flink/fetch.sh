#!/bin/sh
# Fetches the jars of pom.xml with Maven into FOLDER, and checks that they are exactly those of jars.sha256.
set -eu
: "${1:?usage: fetch.sh FOLDER}"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
mvn --batch-mode --quiet -Dmaven.artifact.threads=8 --file "$here/pom.xml" \
    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder"
cd "$folder"
sha256sum --check --strict --quiet "$here/jars.sha256"
strangers=$(ls ./*.jar | sed 's|^\./||' | grep -vxF "$(cut -c67- "$here/jars.sha256")" || true)
if [ -n "$strangers" ]; then
    echo "$folder: not in jars.sha256: $strangers" >&2
    exit 1
fi
