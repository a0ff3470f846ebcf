# All commands of the project. Nothing needs to be activated: Python >= 3.11 and make suffice.

# The interpreters that the environments are made from (the predecessor's needs Python 3.11 or 3.12); the environments;
# options for demo, bench and pytest; which cases to time.
PYTHON ?= python3
PYTHON_LATEST ?= python3.13
PYTHON_REFERENCE ?= $(PYTHON)
VENV ?= .venv
VENV_LATEST ?= .venv-latest
VENV_REFERENCE ?= .venv-reference
ARGS ?=
CASES ?=

PY = $(VENV)/bin/python
PY_LATEST = $(VENV_LATEST)/bin/python
LIBRARY = neural_tangents_nb

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-latest docs notebooks export readme bench bench-ratios bench-scale clean distclean
.DELETE_ON_ERROR:

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

# --- environments -----------------------------------------------------------------------------------------

# $(call venv,INTERPRETER,FOLDER,VARIABLE)
define venv
@$(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "\
	Python >= 3.11 is needed, but '$(1)' is missing or older. Name another one: make $(MAKECMDGOALS) $(3)=/path/to/python" >&2; exit 1; }
@$(1) -m venv $(2) || { echo "'$(1)' cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endef

# $(call install,FOLDER,PIP ARGUMENTS): three attempts, as a registry may fail for a moment
define install
@echo "Installing $(2) into $(1) (minutes the first time)"
@for try in 1 2 3; do \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2) && exit 0; sleep $$((5*try)); \
done; echo "pip could not install $(2): see its messages above" >&2; exit 1
endef

$(VENV)/bin/pip:
	$(call venv,$(PYTHON),$(VENV),PYTHON)

$(VENV)/demo.stamp: settings.ini setup.py | $(VENV)/bin/pip
	$(call install,$(VENV),-e '.[demo]')
	@touch $@

$(VENV)/dev.stamp: settings.ini setup.py | $(VENV)/bin/pip
	$(call install,$(VENV),-e '.[dev]')
	@touch $(VENV)/demo.stamp $@

$(VENV_LATEST)/bin/pip:
	$(call venv,$(PYTHON_LATEST),$(VENV_LATEST),PYTHON_LATEST)

$(VENV_LATEST)/dev.stamp: settings.ini setup.py | $(VENV_LATEST)/bin/pip
	$(call install,$(VENV_LATEST),--upgrade --upgrade-strategy eager -e '.[dev]')
	@touch $@

# --- what one runs ----------------------------------------------------------------------------------------

demo: $(VENV)/demo.stamp ## Classify real images by an infinite network, with uncertainty (ARGS='--help': options)
	$(PY) -m $(LIBRARY) $(ARGS)

test: $(VENV)/dev.stamp ## Check notebooks, modules, site and package, in ten minutes
	$(PY) tools/check_sync.py
	$(PY) tools/check_imports.py
	$(PY) tools/check_house.py
	$(PY) tools/run_notebooks.py
	$(PY) tools/build_site.py
	$(PY) -m pytest -q -n 2 --dist worksteal $(ARGS)

test-all: export FULL = 1
test-all: test ## All that `make test` does, with long tests and full sizes, and twenty faults that tests must find
	$(PY) tools/break.py

test-latest: $(VENV_LATEST)/dev.stamp ## Notebooks and pytest on Python 3.13 with the newest JAX
	@$(PY_LATEST) -c "import sys, jax; print(f'Python {sys.version.split()[0]}, JAX {jax.__version__}')"
	$(PY_LATEST) tools/run_notebooks.py
	$(PY_LATEST) -m pytest -q -n 2 --dist worksteal $(ARGS)

docs: $(VENV)/dev.stamp ## Build the site, offline, into _docs/
	$(PY) tools/build_site.py

notebooks: $(VENV)/dev.stamp ## Execute all notebooks (or ARGS='nbs/00_core.ipynb ...') and save their outputs
	$(PY) tools/run_notebooks.py --save $(ARGS)

export: $(VENV)/dev.stamp ## Write the modules from the notebooks, clean the notebooks, write README.md
	$(VENV)/bin/nbdev_export
	$(VENV)/bin/nbdev_clean
	$(PY) tools/readme.py

readme: $(VENV)/dev.stamp ## Write README.md from nbs/index.ipynb
	$(PY) tools/readme.py

$(VENV_REFERENCE)/bin/pip:
	$(call venv,$(PYTHON_REFERENCE),$(VENV_REFERENCE),PYTHON_REFERENCE)

$(VENV_REFERENCE)/stamp: benchmarks/reference-requirements.txt | $(VENV_REFERENCE)/bin/pip
	$(call install,$(VENV_REFERENCE),-r benchmarks/reference-requirements.txt)
	@touch $@

bench: $(VENV)/dev.stamp $(VENV_REFERENCE)/stamp ## Time this library beside its predecessor (CASES=REGEX: some cases)
	$(PY) -m benchmarks --reference $(VENV_REFERENCE)/bin/python --accuracy --only '$(CASES)' $(ARGS)

bench-ratios: $(VENV)/dev.stamp ## Time this library's choices beside each other
	$(PY) -m benchmarks.ratios $(ARGS)

bench-scale: $(VENV)/dev.stamp ## Measure kernels too large for memory (CASES='cg disk': some cases)
	$(PY) -m benchmarks.scale $(CASES)

clean: ## Remove what was built, keep the environments
	rm -rf _docs _proc build dist out *.egg-info .pytest_cache .hypothesis .cache
	find $(LIBRARY) nbs tests tools -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove the environments as well
	rm -rf $(VENV) $(VENV_LATEST) $(VENV_REFERENCE)
