# Two commands: `make demo` shows Kiln, `make test` proves it. Every target makes the environment it needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Without its bytecode kept, Python compiles four thousand modules in every process that draws: 18 s of its start.
unexport PYTHONDONTWRITEBYTECODE
# A process for each core, and three at most: where cores are slow, tests miss their time. A file's tests share what they started.
TESTS := -m pytest --numprocesses logical --maxprocesses 3 --dist loadfile --no-loadscope-reorder
PINS := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt

# What keeps the queue's promise: every branch is tested.
WHOLE := bot/queue/job_*.py,bot/queue/accepting.py,bot/queue/admission.py,bot/queue/limits.py,bot/queue/endings.py,bot/queue/outbox.py,bot/queue/fairness.py,bot/queue/dispatcher.py,bot/queue/drawing.py,bot/delivery/delivery.py,bot/delivery/ladder.py,bot/delivery/posting.py,bot/delivery/upload.py

.PHONY: demo run test coverage torture check format clean

demo: $(STAMP)
	$(BIN)/kiln demo

run: $(STAMP)
	$(BIN)/kiln run

test: $(STAMP)
	$(BIN)/python $(TESTS)

coverage: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=90
	$(BIN)/coverage report --include='$(WHOLE)' --fail-under=100

# A thousand kills and a soak of 50,000 jobs: half an hour on two cores. Not part of the tests.
torture: $(STAMP)
	$(BIN)/python -m tests.torture --json bench/results/torture.json

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/kiln db check --models

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv

# Without --no-compile, 18,000 modules are compiled of which a fifth is ever imported: those are at their first import.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PINS) $(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	touch $(STAMP)
