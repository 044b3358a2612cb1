# Two commands set everything up: `make demo` and `make test`. Both make .venv where it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread per process: small molecules gain nothing from more, and two processes share two cores well.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow peers engines lint venv clean

demo: venv
	$(BIN)/hesse demo --out demo-out

test: venv
	$(BIN)/pytest -n 2

# Tests that compile, start several processes or take long one by one.
test-slow: venv
	$(BIN)/pytest -n 2 --maxschedchunk 1 -m "slow and not long"

# The adapters of MACE, NequIP, CHGNet and SevenNet, in environments of their own.
peers:
	.ci/peers

# LAMMPS, i-PI, OpenMM, torch-sim, metatomic, Sella and geomeTRIC, with real runs, in an environment of their own.
engines:
	.ci/engines

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

venv: $(VENV)/.ready

# PyTorch first and by exact version: otherwise the newest build is taken, whatever it brings with it. Modules are
# compiled when they are imported first (--no-compile): most of 16,000 never are, and it takes a minute and a half.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Hesse needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e ".[xtb,qc,cluster,formats,materials,coarse,tensorboard,peers,dev]" -c constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-mace $(VENV)-nequip $(VENV)-chgnet $(VENV)-sevenn $(VENV)-engines demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
