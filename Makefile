# test and coverage take LONG=1: also the tests that take minutes each.
# setup takes two settings: GPU=1 for the CUDA build of TensorFlow, PYTHON=/path/to/python3.11 (scripts/setup.sh).
.PHONY: setup demo test coverage check docs bench soak lock clean
PY := .venv/bin/python
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder
COMPILE := $(PY) -m uv pip compile setup.py --extra s3 --extra kubeflow --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--override overrides.txt --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --quiet

setup:
	@GPU="$(GPU)" PYTHON="$(PYTHON)" sh scripts/setup.sh

demo: setup
	$(PY) local_runner.py demo

test: setup
	DEEPLAB_LONG_TESTS="$(LONG)" $(PY) $(PYTEST)

coverage: setup
	$(PY) -m coverage erase
	DEEPLAB_LONG_TESTS="$(LONG)" $(PY) -m coverage run $(PYTEST)
	$(PY) -m coverage combine --quiet && $(PY) -m coverage html --quiet
	@for part in data/ models/ components/ pipeline/ ''; do \
		printf '%-12s %3s %%\n' "$${part:-total}" "$$($(PY) -m coverage report --include="./$$part*" --format=total)"; done
	@echo 'line by line: build/coverage/index.html'

check: setup
	$(PY) -m ruff format --check . && $(PY) -m ruff check .
	$(PY) -m mypy && $(PY) -m pytest --quiet tests/test_layering.py

docs: setup
	PYTHONPATH=. $(PY) scripts/configuration_reference.py

bench: setup
	@set -e; for name in storage input speed; do echo "== $$name"; PYTHONPATH=. $(PY) benchmarks/$$name.py; done

soak: setup
	PYTHONPATH=. $(PY) benchmarks/soak.py --runs $(or $(N),200) $(if $(DIR),--folder $(DIR))

lock: setup
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev --extra video -c requirements.lock -o requirements-dev.lock
	@# An override replaces a requirement with its extras: the CUDA libraries have to be asked for by one more override.
	echo 'tensorflow[and-cuda]' | $(COMPILE) --extra dev --extra video --override - -c requirements-dev.lock -o requirements-gpu.lock

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
