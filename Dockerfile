# One image for every step of the pipeline, for the command lines and for Beam workers.
#
#   docker build -t REGISTRY/deeplab-tfx:TAG .                    training on CPUs
#   docker build -t REGISTRY/deeplab-tfx:TAG-gpu --build-arg GPU=1 .   with NVIDIA's CUDA libraries
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# The version of apache-beam in requirements.lock: boot and the Python SDK speak one protocol.
ARG BEAM_VERSION=2.77.0

FROM apache/beam_python3.11_sdk:${BEAM_VERSION} AS beam

FROM ${PYTHON_IMAGE} AS packages
ARG GPU=0
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
COPY requirements.lock requirements-gpu.lock requirements-dev.lock ./
# uv installs, as in scripts/setup.sh, from the entry of the development lock; it stays in this stage. The CUDA
# libraries are the entries of the GPU lock whose names begin with nvidia-.
RUN awk '/^[^ #]/ { on = /^uv==/ } on' requirements-dev.lock >uv.lock; \
    python -m venv uv; \
    uv/bin/pip install --no-cache-dir --require-hashes -r uv.lock; \
    cp requirements.lock all.lock; \
    if [ "$GPU" = 1 ]; then awk '/^[^ #]/ { on = /^nvidia-/ } on' requirements-gpu.lock >>all.lock; fi; \
    python -m venv /opt/venv; \
    uv/bin/uv pip install --python /opt/venv/bin/python --no-deps --require-hashes --compile-bytecode -r all.lock
# Never read at run time: C++ headers for building TensorFlow ops, the C parser that TensorFlow lists but does not
# load, static libraries and the packages' own tests.
WORKDIR /opt/venv/lib/python3.11/site-packages
RUN rm -rf tensorflow/include clang/native; \
    find . -name '*.a' -delete; \
    find . -type d -name tests -prune -exec rm -rf {} +

FROM ${PYTHON_IMAGE}
# Group 0 may write where the user may, for clusters that start containers under a user number of their own.
RUN useradd --uid 10001 --gid 0 --create-home deeplab && chmod g=u /home/deeplab && \
    install -d -o deeplab -g 0 -m 0775 /opt/deeplab/workspace
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=packages /opt/venv /opt/venv
ENV HOME=/home/deeplab \
    PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/deeplab \
    PYTHONUNBUFFERED=1 \
    RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
WORKDIR /opt/deeplab
# setup.py and what it reads are there for Beam runners that want a --setup_file.
COPY LICENSE README.md pyproject.toml setup.py requirements.lock local_runner.py kubeflow_runner.py ./
COPY data ./data
COPY models ./models
COPY components ./components
COPY pipeline ./pipeline
COPY deploy/entrypoint.sh /opt/entrypoint.sh
# The user cannot write beside the code, so Python's compiled files are made now.
RUN python -m compileall -q data models components pipeline local_runner.py kubeflow_runner.py
USER 10001:0
HEALTHCHECK --interval=5m --timeout=1m --start-period=30s CMD ["python", "local_runner.py", "doctor", "--quick"]
ENTRYPOINT ["/opt/entrypoint.sh"]
CMD ["python", "local_runner.py", "--help"]
