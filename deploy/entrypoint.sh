#!/bin/sh
# Beam's runners start the image with flags for Beam's boot program; everything else starts it with a command.
case "${1:-}" in
    --*) exec /opt/apache/beam/boot "$@" ;;
    *) exec "$@" ;;
esac
