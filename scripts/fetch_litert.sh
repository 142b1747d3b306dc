#!/bin/sh
# Puts LiteRT.js, with which the browser page runs models, into a folder:
#   scripts/fetch_litert.sh workspace/serving/MODEL/VERSION/assets.extra/lite/litert
# It comes from the npm registry through npm, at the versions and checksums below; 18 MB. Needs npm and sha256sum.
set -eu

core=2.5.3 core_sha256=a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd
utils=2.5.3 utils_sha256=ce2a1f8379c067be49e59752e5a7f40db6be09f6e497f0f11e59f17b515366a7

[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
cd "$download"

fetch() { # NAME VERSION SHA256: unpacks the package into the folder NAME
    npm pack --silent "@litertjs/$1@$2" >/dev/null
    echo "$3  litertjs-$1-$2.tgz" | sha256sum --check --quiet
    mkdir "$1"
    tar -xzf "litertjs-$1-$2.tgz" -C "$1" --strip-components=1
}

fetch core "$core" "$core_sha256"
fetch wasm-utils "$utils" "$utils_sha256"
install -m 644 core/dist/index.js "$target/core.js"
install -m 644 wasm-utils/dist/index.js "$target/wasm-utils.js"
# With and without the relaxed SIMD of newer browsers; LiteRT.js chooses.
install -m 644 core/wasm/litert_wasm_internal.* core/wasm/litert_wasm_compat_internal.* "$target/"
