# make demo: what lower precision does to a training run and to a deployed model, on real data.
# make test: every test on every stack. Both make their own environment, and reuse it.

PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check clean

demo: .venv/demo/.ready
	.venv/demo/bin/keras-precision demo

test: .venv/test/.ready
	.venv/test/bin/python tests/run.py

check: .venv/test/.ready
	.venv/test/bin/python tests/run.py check

.venv/demo/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv/demo
	.venv/demo/bin/python $(PIP_INSTALL) -e '.[demo]'
	touch $@

.venv/test/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv/test
	.venv/test/bin/python $(PIP_INSTALL) torch
	.venv/test/bin/python $(PIP_INSTALL) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist results *.egg-info
