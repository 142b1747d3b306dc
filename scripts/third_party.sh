#!/bin/sh
# Writes THIRD_PARTY.md, the licences of the packages in requirements.lock, and build/sbom.cdx.json, a CycloneDX bill of
# materials of them with every version and hash. Run it after `make lock` and `make setup`.
set -eu
cd "$(dirname "$0")/.."

packages=$(sed -n 's/^\([A-Za-z0-9._-]*\)\(\[[^]]*\]\)\{0,1\}==.*/\1/p' requirements.lock)
mkdir -p build
{
    cat <<'END'
# Third-party software

Written by `scripts/third_party.sh`; do not edit. This project is under the Apache License 2.0 (LICENSE) and contains no
code of others. It runs with the packages below, which `requirements.lock` pins, as their metadata state their licences.

The browser page of section `lite` runs with LiteRT.js (@litertjs/core and @litertjs/wasm-utils, Apache-2.0), which
`scripts/fetch_litert.sh` fetches at pinned checksums.

END
    # shellcheck disable=SC2086  # one argument a package
    .venv/bin/pip-licenses --with-system --format markdown --packages $packages
} >build/third_party.md
.venv/bin/cyclonedx-py requirements requirements.lock --output-reproducible --of JSON -o build/sbom.cdx.json
mv build/third_party.md THIRD_PARTY.md
