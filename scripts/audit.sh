#!/bin/sh
# Asks the package index for known vulnerabilities of every package in requirements.lock; fails if there is one, or if a
# package could not be looked up. Needs an index that serves vulnerability reports; a plain mirror does not.
set -eu
cd "$(dirname "$0")/.."
exec .venv/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off
