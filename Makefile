# make            set up .venv, run the whole pipeline on the built-in corpus, print where the results are
# make check      set up .venv, run linters, type checker and quick tests
# make test       set up .venv, run the tests (make test-long: those that take half a minute or more each)
# make help       list all targets

CONFIG ?=
NPROC ?= 2
ARGS ?=
PYTHON ?= python3
PORT ?= 5000
PROFILE ?= cpu
# Processes of `make test`: more than processors, since many tests wait for deadlines.
WORKERS ?= $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 )))
MODEL ?= $(or $(basename $(notdir $(CONFIG))),quickstart)
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

BIN := .venv/bin
READY := .venv/.ready
STORE = $(or $(MLFLOW_TRACKING_URI),sqlite:///mlflow.db)
SETTINGS = $(if $(CONFIG),--config $(CONFIG)) $(ARGS)
STAGE = $(COMPOSE) run --rm -T --no-deps
WAIT = for second in $$(seq 180); do \
	  [ "$$(docker inspect --format '{{.State.Health.Status}}' $$($(COMPOSE) ps -q $(1)))" = healthy ] && exit; sleep 1; \
	done; echo "$(1) is not healthy after 180 s; see '$(COMPOSE) logs $(1)'" >&2; exit 1

# What `make check` tests: files and folders that take seconds.
QUICK = $(addprefix tests/,test_architecture.py test_commands.py test_compose.py test_configs.py base corpus dataset model)

.PHONY: run preprocess train evaluate generate ui bench bench-quick compare-batching random-trainings site hosts containers torture kill-preprocess kill-training kill-generation \
	test test-long check lint help clean up down clean-volumes

run: $(READY)
	@$(BIN)/python -m pipeline run $(SETTINGS)

preprocess: $(READY)
	@$(BIN)/python -m preprocess $(SETTINGS)

train: $(READY)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/torchrun --standalone --nproc-per-node $(NPROC) train $(SETTINGS)

evaluate generate: $(READY)
	@$(BIN)/python -m serve $@ $(SETTINGS)

ui: $(READY)
	@case "$(STORE)" in \
	  http*) echo "runs are tracked by a server; open its address (MLFLOW_TRACKING_URI) in a browser" ;; \
	  *) echo "MLflow: http://127.0.0.1:$(PORT) (Ctrl-C stops it)"; \
	     MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true \
	     $(BIN)/mlflow ui --backend-store-uri "$(STORE)" --host 127.0.0.1 --port $(PORT) ;; \
	esac

bench: preprocess
	@for part in step sentences layouts layers "ranks --rounds 3"; do $(BIN)/python benchmarks/recurrence_speed.py $$part $(SETTINGS) || exit; done
	@$(BIN)/python benchmarks/scoring_speed.py
	@$(BIN)/python benchmarks/decoding_speed.py

bench-quick: preprocess
	@$(BIN)/python benchmarks/recurrence_speed.py step $(SETTINGS) --rounds 1 --seconds 0.3
	@$(BIN)/python benchmarks/scoring_speed.py --sentences 500 --rounds 1
	@$(BIN)/python benchmarks/decoding_speed.py --rounds 1 --groups 2

compare-batching: $(READY)
	@$(BIN)/python benchmarks/compare_batching.py $(SETTINGS)

torture: $(READY)
	@$(BIN)/python -m tests.torture $(ARGS)

kill-preprocess kill-training kill-generation: $(READY)
	@$(BIN)/python -m tests.torture --only $(subst kill-,kills-,$@) $(ARGS)

hosts: $(READY)
	@$(BIN)/python -m tests.torture.hosts $(ARGS)

containers: $(READY)
	@$(BIN)/python -m tests.documentation.containers

site: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html; with search: $(BIN)/python -m http.server --directory site --bind 127.0.0.1"

random-trainings: $(READY)
	@$(BIN)/python benchmarks/random_trainings.py $(ARGS)

# The service `serve` is recreated because it resolves its champion when it starts.
up:
	@mkdir -p corpora
	@$(COMPOSE) build mlflow preprocess
	@$(COMPOSE) up -d mlflow
	@$(call WAIT,mlflow)
	@$(STAGE) preprocess $(SETTINGS)
	@$(STAGE) $(if $(filter gpu,$(PROFILE)),train-gpu,train) $(SETTINGS)
	@$(STAGE) evaluate $(SETTINGS)
	@$(STAGE) generate $(SETTINGS)
	@MODEL=$(MODEL) $(COMPOSE) up -d --no-deps --force-recreate serve
	@$(call WAIT,serve)
	@echo "MLflow: http://$$($(COMPOSE) port mlflow 5000)   models:/$(MODEL)@champion: http://$$($(COMPOSE) port serve 8000)/invocations"

down:
	@$(COMPOSE) --profile stages --profile cpu --profile gpu down

clean-volumes:
	@printf "This permanently deletes all datasets, models and tracked runs of docker-compose. Type 'delete' to continue: "; \
	read -r answer && [ "$$answer" = delete ] || { echo "nothing was deleted" >&2; exit 1; }
	@$(COMPOSE) --profile stages --profile cpu --profile gpu down --volumes

test: $(READY)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not long" $(ARGS)

test-long: $(READY)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist load -m long $(ARGS)

check: lint
	@$(BIN)/python -m pytest -n auto $(QUICK) $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/mypy

help:
	@echo "make                   set up .venv, run the whole pipeline, print where the results are"
	@echo "make check             linters, type checker and quick tests, in under a minute"
	@echo "make test              the tests, but for the long ones"
	@echo "make test-long         tests of half a minute or more each: kills, signals, hostile names, secrets in a whole run"
	@echo "make lint              ruff and mypy"
	@echo "make preprocess        documents -> dataset"
	@echo "make train             dataset -> model, on NPROC processes with torchrun"
	@echo "make evaluate          perplexity of the model"
	@echo "make generate          text from prompts"
	@echo "make ui                MLflow with all runs, at http://127.0.0.1:$(PORT)"
	@echo "make site              the documentation as a site, in site/"
	@echo "make bench             speed of training, scoring and generation compared with plain PyTorch, half an hour"
	@echo "make bench-quick       the same in two minutes: fewer comparisons, each once"
	@echo "make compare-batching  batching methods compared on a recipe: speed, memory, perplexity"
	@echo "make torture           kills, damaged files, malformed input, full disks, ... on every stage   ARGS=\"--minutes 60 --seed 7\""
	@echo "make kill-preprocess, kill-training, kill-generation   its kills alone, files compared   ARGS=\"--trials 300\""
	@echo "make hosts             training on several hosts, as network namespaces (root): one is lost   ARGS=\"--hosts 4\""
	@echo "make containers        the commands of docs/compose.md on real containers, with a backup and its restoration"
	@echo "make random-trainings  trainings with random settings: interrupted ones and other layouts must agree   ARGS=\"--minutes 60\""
	@echo "make clean             remove .venv and caches; keeps data/, runs/ and mlflow.db"
	@echo "make up                all stages in containers, with a tracking server (docs/compose.md)   PROFILE=gpu"
	@echo "make down              stop and remove the containers; keeps the data"
	@echo "make clean-volumes     delete the containers' data, after confirmation"
	@echo
	@echo "CONFIG=$(or $(CONFIG),quickstart)   NPROC=$(NPROC) processes of make train   PYTHON=$(PYTHON)   PORT=$(PORT)"
	@echo 'ARGS="--train.lr 0.5"   further arguments; make train ARGS=--rebuild starts over'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "packlm needs Python 3.11 or newer, $(PYTHON) is older; choose another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv, which takes some minutes ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null || true  # on all processors, which pip does on one; some files are templates
	@touch $@

clean:
	rm -rf .venv *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
