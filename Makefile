# make            set up .venv, run the whole pipeline on the built-in corpus, say where everything is
# make test       set up .venv, run the tests
# make help       all targets

CONFIG ?= configs/quickstart.toml
NPROC ?= 2
ARGS ?=
PYTHON ?= python3
PORT ?= 5000
PROFILE ?= cpu
MODEL ?= $(basename $(notdir $(CONFIG)))
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

BIN := .venv/bin
READY := .venv/.ready
STORE = $(or $(MLFLOW_TRACKING_URI),sqlite:///mlflow.db)
SETTINGS = --config $(CONFIG) $(ARGS)
STAGE = $(COMPOSE) run --rm -T --no-deps
WAIT = for second in $$(seq 180); do \
	  [ "$$(docker inspect --format '{{.State.Health.Status}}' $$($(COMPOSE) ps -q $(1)))" = healthy ] && exit; sleep 1; \
	done; echo "$(1) does not answer; '$(COMPOSE) logs $(1)' may say why" >&2; exit 1

.PHONY: run preprocess train evaluate generate ui bench compare-batching random-trainings kill-training kill-generation test lint help clean up down clean-volumes

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
	  http*) echo "the record is kept by a server; open its address (MLFLOW_TRACKING_URI) in a browser" ;; \
	  *) echo "MLflow: http://127.0.0.1:$(PORT) (Ctrl-C ends it)"; \
	     MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true \
	     $(BIN)/mlflow ui --backend-store-uri "$(STORE)" --host 127.0.0.1 --port $(PORT) ;; \
	esac

bench: preprocess
	@for part in step sentences layers; do $(BIN)/python benchmarks/recurrence_speed.py $$part $(SETTINGS) || exit; done
	@$(BIN)/python benchmarks/scoring_speed.py
	@$(BIN)/python benchmarks/decoding_speed.py

compare-batching: $(READY)
	@$(BIN)/python benchmarks/compare_batching.py $(SETTINGS)

kill-training: $(READY)
	@$(BIN)/python benchmarks/kill_training.py $(ARGS)

kill-generation: $(READY)
	@$(BIN)/python benchmarks/kill_generation.py $(ARGS)

random-trainings: $(READY)
	@$(BIN)/python benchmarks/random_trainings.py $(ARGS)

# The served model is started anew: it looks for its champion only then.
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
	@printf "This deletes every dataset, model and record of docker-compose for good. Type 'delete' to go on: "; \
	read -r answer && [ "$$answer" = delete ] || { echo "nothing was deleted" >&2; exit 1; }
	@$(COMPOSE) --profile stages --profile cpu --profile gpu down --volumes

test: $(READY)
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/mypy

help:
	@echo "make                   set up .venv, run the whole pipeline, say where everything is"
	@echo "make test              set up .venv, run the tests"
	@echo "make preprocess        documents -> dataset"
	@echo "make train             dataset -> model, with torchrun"
	@echo "make evaluate          perplexity of the model"
	@echo "make generate          text from prompts"
	@echo "make ui                the record of all runs, in MLflow, at http://127.0.0.1:$(PORT)"
	@echo "make bench             training, scoring and generation beside the usual code, some minutes"
	@echo "make compare-batching  ways to batch sentences side by side, on a recipe"
	@echo "make kill-training     kill a training 30 times, compare bit for bit   ARGS=\"--times 300\""
	@echo "make kill-generation   kill a batch job 50 times, compare byte for byte"
	@echo "make random-trainings  trainings with settings drawn at random, stopped and in other layouts, compared   ARGS=\"--minutes 60\""
	@echo "make lint              ruff and mypy"
	@echo "make clean             remove .venv and caches; data/, runs/ and mlflow.db stay"
	@echo "make up                all of it in containers, with a tracking server (docs/compose.md)   PROFILE=gpu"
	@echo "make down              stop and remove the containers; the data stays"
	@echo "make clean-volumes     delete the containers' data, after asking"
	@echo
	@echo "CONFIG=$(CONFIG)   NPROC=$(NPROC) processes of make train   PYTHON=$(PYTHON)   PORT=$(PORT)"
	@echo 'ARGS="--train.lr 0.5"   further arguments; make train ARGS=--rebuild starts it over'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "packlm needs Python 3.11 or newer, and $(PYTHON) is not; say which one to use: make PYTHON=python3.12" >&2; exit 1; }
	@echo "setting up .venv, which takes some minutes ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
