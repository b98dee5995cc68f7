# Everything a user or a developer starts. The environment is .venv, made here from requirements.lock with nothing
# but Python >= 3.11, make and PyPI; one for the demo, the tests and the services, because the tools of the
# developers are 2 % of what torch, Ray and Prefect weigh, and one environment cannot disagree with another.
# Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --no-input --progress-bar off
STAMP := $(VENV)/.installed
OUT := pointloom-demo
PYTEST_ARGS :=
# Files of tests are shared out to four processes, which wait half of their time for servers and Ray to start, the
# long ones first. The slow tests measure times and kill processes, one after the other.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
FUZZ_ARGS :=

# What the shell of the user points at (another Prefect server, another source tree) must not reach a run.
$(foreach name,$(filter PREFECT_%,$(.VARIABLES)),$(eval unexport $(name)))
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV
# Prefect makes this folder itself, but not the one above it: hence the mkdirs below.
export PREFECT_HOME := $(CURDIR)/.pointloom/prefect
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120
export RAY_USAGE_STATS_ENABLED := 0
# On one machine nobody else's Ray is meant; a cluster of one's own asks for a token (infra/compose.yaml).
export RAY_AUTH_MODE ?= disabled
# Threads are counted in the jobs; waiting OpenMP threads would only take CPUs from them.
export OMP_WAIT_POLICY := PASSIVE
export PYTHONUNBUFFERED := 1
# Demo and tests start Ray on this machine, also where the shell names a cluster; the services may use one.
HERE := env -u RAY_ADDRESS

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env lock demo table1 unit test test-slow test-all fuzz docs lint types contracts check up down status clean

help:  ## this list
	@echo "Pointloom: raw LiDAR in, labelled clouds out. The first target that needs it makes $(VENV)."
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r target text; do printf '%-18s %s\n' "$$target" "$$text"; done

env: $(STAMP)  ## make or refresh the environment in .venv, and nothing else

# The stamp comes last, so an install that was interrupted is taken up again. A .venv whose interpreter is
# gone or has no pip (interrupted earlier still) is made anew.
$(STAMP): pyproject.toml requirements.lock
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no '$(PYTHON)' on the PATH; install Python 3.11 or newer," \
		"or name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: '$(PYTHON)' is" \
		"$$("$(PYTHON)" --version 2>&1), Pointloom needs 3.11 or newer; name one: make PYTHON=python3.12" \
		"$(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "error: '$(PYTHON)' has no venv module;" \
		"install it (Debian, Ubuntu: apt install python3-venv) and try again." >&2; exit 1; }
	@echo "Making the environment in $(VENV): about 150 packages, 2 to 6 GB, some minutes on the first time."
	@rm -f $@
	@$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@{ $(PIP) --no-deps --require-hashes -r requirements.lock \
			&& $(PIP) "$$(sed -n 's/^ *"\(torch==[^"]*\)",$$/\1/p' pyproject.toml)" \
			&& $(PIP) --no-deps --no-build-isolation -e . && touch $@; } 2>&1 \
		| tee $(VENV)/install.log | awk '/^Collecting /{ if (++n % 25 == 0) print "  " n " packages found" } \
		/^Installing collected/{ print "  installing " n " packages" } /ERROR/ { print }'
	@[ -e $@ ] || { echo "error: pip could not install the packages of requirements.lock into $(VENV); its reason is" \
		"above and in $(VENV)/install.log; check the network and try again, what was fetched is kept." >&2; exit 1; }
	@echo "The environment is ready."

lock: $(STAMP)  ## write requirements.lock anew, with the newest versions that pyproject.toml allows
	$(VENV)/bin/uv pip compile --quiet --upgrade --extra dev --output-file requirements.lock pyproject.toml

demo: $(STAMP)  ## preprocess, train, segment and evaluate a real scan; a few minutes, ends with a report to open
	@mkdir -p "$(PREFECT_HOME)"
	@$(HERE) $(PY) -m flows demo --out "$(OUT)"

# The ICCV paper's table 1 from S3DIS as it is delivered: columns of 1 m every 0.5 m, 4096 points each, the nine
# channels, Area 5 as the test. Unlike the paper, the first room of each kind (a fifth) of the other areas validates, and
# picks the epoch that Area 5 is scored with, once. Both steps go on where they were interrupted.
S3DIS ?= Stanford3dDataset_v1.2
TABLE1 ?= table1
TABLE1_ARGS ?=
table1: $(STAMP)  ## the paper's ablation table, with the S3DIS dataset: make table1 S3DIS=Stanford3dDataset_v1.2
	@mkdir -p "$(PREFECT_HOME)"
	@$(PY) -m flows preprocess --scans "$(S3DIS)" --out "$(TABLE1)/blocks" --label-scheme s3dis --tile-size-m 1 \
		--halo-m 0 --overlap 2 --no-thin --max-points 1000000 --sample-points 4096 --min-points 100 \
		--features xyz rgb room_xyz --val-fraction 0 --val-scans '*_1' --test-scans 'Area_5/*'
	@$(PY) -m flows ablate --dataset "$(TABLE1)/blocks" --out "$(TABLE1)" --features xyz rgb room_xyz $(TABLE1_ARGS)

unit: $(STAMP)  ## the tests that need neither Ray nor Prefect; under two minutes
	OMP_NUM_THREADS=1 $(PY) -m pytest $(PARALLEL) -m "not slow" tests/pointcloud tests/models $(PYTEST_ARGS)

test: $(STAMP)  ## the quick tests
	@mkdir -p "$(PREFECT_HOME)-test"
	$(HERE) OMP_NUM_THREADS=1 PREFECT_HOME="$(PREFECT_HOME)-test" $(PY) -m pytest $(PARALLEL) -m "not slow" $(PYTEST_ARGS)

test-slow: $(STAMP)  ## the tests that take minutes
	@mkdir -p "$(PREFECT_HOME)-test"
	$(HERE) PREFECT_HOME="$(PREFECT_HOME)-test" $(PY) -m pytest -m slow --durations=0 --durations-min=1 $(PYTEST_ARGS)

test-all: test test-slow  ## all tests

fuzz: $(STAMP)  ## ten thousand damaged inputs of every kind; at most half an hour
	$(PY) -m tests.fuzz $(FUZZ_ARGS)

CHECK_SCHEMA := $(VENV)/bin/check-jsonschema --quiet --builtin-schema
lint: $(STAMP)  ## rules and format of the code, spelling, declared imports, schemas of workflows and other such files
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/codespell
	$(VENV)/bin/deptry .
	$(CHECK_SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(CHECK_SCHEMA) vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(CHECK_SCHEMA) vendor.dependabot .github/dependabot.yml
	$(CHECK_SCHEMA) vendor.compose-spec infra/compose.yaml
	$(CHECK_SCHEMA) vendor.citation-file-format --default-filetype yaml CITATION.cff

types: $(STAMP)  ## mypy
	$(PY) -m mypy

contracts: $(STAMP)  ## import-linter: imports go downwards only
	$(VENV)/bin/lint-imports

docs: $(STAMP)  ## the documentation as a site, in site/; every warning is an error
	$(PY) -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

check: lint types contracts test  ## lint, types, contracts and the quick tests

up: $(STAMP)  ## start a Prefect server, a process worker and the deployments of prefect.yaml on this machine
	@$(PY) -m infra.local_services up

down: $(STAMP)  ## end what `make up` started, and nothing else
	@$(PY) -m infra.local_services down

status: $(STAMP)  ## which of these services run
	@$(PY) -m infra.local_services status

clean:  ## remove .venv, .pointloom and the tools' caches; results of the demo are kept
	@if [ -e .pointloom/up/state.json ]; then \
		echo "error: services of 'make up' may be running; run 'make down' first." >&2; exit 1; fi
	rm -rf $(VENV) .pointloom build site *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find flows tasks models pointcloud infra tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -e pointloom-demo ]; then \
		echo "The results in pointloom-demo are kept; 'rm -r pointloom-demo' removes them."; fi
