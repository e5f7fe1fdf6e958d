# Two commands are all a newcomer types: `make night` and `make test`.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.ready
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1

.PHONY: setup night test bench kafka clean

setup: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ztfluigi needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (a few minutes the first time)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --only-binary=:all: --no-binary=ztfluigi,luigi -e '.[test]'
	@touch $@

night: setup
	@$(VENV)/bin/ztf demo

test: setup
	@$(VENV)/bin/python -m pytest -n 2 --dist loadgroup

kafka: setup
	@$(VENV)/bin/ztf kafka start

bench: setup
	@$(VENV)/bin/python -m benchmarks speed
	@$(VENV)/bin/python -m benchmarks accuracy --quick

clean:
	rm -rf demo build *.egg-info
