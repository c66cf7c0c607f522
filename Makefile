# `make help` lists every target.
SHELL := /bin/bash
VENV ?= .venv
CONFIG ?= configs/demo.yaml
ARGS ?=
BIN := $(CURDIR)/$(VENV)/bin
# Spark's Python workers and horovodrun's processes take `python` from here.
export PATH := $(BIN):$(PATH)
export PYSPARK_PYTHON ?= $(BIN)/python
# Quiet logging and local defaults; clusters bring their own folder (docs/clusters.md).
export SPARK_CONF_DIR ?= $(CURDIR)/cluster_configs/local
SUBMIT ?= spark-submit

.DEFAULT_GOAL := help

##@ The two that do everything
.PHONY: demo
demo: setup ## set up, then everything on generated scenes: curate, train, evaluate, report
	@python -m demo $(ARGS)

.PHONY: test
test: setup lint ## set up, lint, and run all tests
	@python -m pytest -q $(ARGS)

##@ Set-up
.PHONY: setup
setup: ## virtual environment from the lock; seconds when nothing changed
	@VENV=$(VENV) scripts/setup.sh

.PHONY: lint
lint: setup ## ruff check and ruff format --check
	@ruff check . && ruff format --check .

.PHONY: package
package: setup ## dist/environment.tar.gz and dist/cocu.zip, for spark-submit --archives and --py-files
	@scripts/package.sh

##@ The steps (CONFIG=configs/demo.yaml, ARGS="key=value ...")
JOBS := ingest embed_images mine_concepts build_index build_archives export_training report
.PHONY: $(subst _,-,$(JOBS)) curate
ingest: setup ## shards -> pairs, rejects
	@$(SUBMIT) spark_jobs/ingest.py --config $(CONFIG) $(ARGS)
embed-images: setup ## pairs -> image_embeddings
	@$(SUBMIT) spark_jobs/embed_images.py --config $(CONFIG) $(ARGS)
mine-concepts: setup ## captions -> concepts, pair_concepts
	@$(SUBMIT) spark_jobs/mine_concepts.py --config $(CONFIG) $(ARGS)
build-index: setup ## image_embeddings, pair_concepts -> index
	@$(SUBMIT) spark_jobs/build_index.py --config $(CONFIG) $(ARGS)
build-archives: setup ## image_embeddings x index -> archives
	@$(SUBMIT) spark_jobs/build_archives.py --config $(CONFIG) $(ARGS)
export-training: setup ## pairs, archives -> training_set
	@$(SUBMIT) spark_jobs/export_training.py --config $(CONFIG) $(ARGS)
report: setup ## all tables -> report.html
	@$(SUBMIT) spark_jobs/report.py --config $(CONFIG) $(ARGS)
curate: setup ## all of the above in one Spark application
	@$(SUBMIT) spark_jobs/pipeline.py --config $(CONFIG) $(ARGS)

.PHONY: train evaluate
train: setup ## training_set -> checkpoints; one process a GPU, or one (NP=4 HOSTS=a:2,b:2)
	@scripts/train.sh --config $(CONFIG) $(ARGS)
evaluate: setup ## zero-shot segmentation (ARGS="--checkpoint C --benchmark voc --data ROOT")
	@python -m evaluation.evaluate $(ARGS)

.PHONY: explain doctor
explain: setup ## one pair's archive in the terminal (KEY=corpus/shard/sample)
	@python -m spark_jobs.explain --config $(CONFIG) $(KEY) $(ARGS)
doctor: setup ## check driver, executors, GPUs, workspace, model before a long run
	@$(SUBMIT) spark_jobs/doctor.py --config $(CONFIG) $(ARGS)

##@ For developers
.PHONY: bench demo-clip format
bench: setup ## our GroupViT step against Hugging Face's
	@python -m tests.benchmarks.bench_groupvit $(ARGS)
demo-clip: setup ## train the demo's tiny CLIP again
	@python -m demo.train_clip $(ARGS)
format: setup ## ruff --fix and ruff format
	@ruff check --fix . ; ruff format .

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
