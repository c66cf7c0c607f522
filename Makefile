# `make help` lists every target.
SHELL := /bin/bash
VENV ?= .venv
# The packages of VENV; requirements-modern.txt is the other one.
LOCK ?= requirements.txt
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

# Files of tests go to so many processes; each has a Spark session of its own (2 GB).
TEST_JOBS ?= 2
PYTEST = python -m pytest -q -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
.PHONY: test
test: setup lint ## set up, lint, and run all tests (ARGS="-k archives"; TEST_JOBS=4 side by side)
	@$(PYTEST) $(ARGS)

##@ Set-up
.PHONY: setup
setup: ## virtual environment from the lock; seconds when nothing changed
	@VENV=$(VENV) LOCK=$(LOCK) scripts/setup.sh

.PHONY: lint
lint: setup ## ruff check, ruff format --check, and what each room may import
	@ruff check . && ruff format --check . && lint-imports --no-logo --no-cache

.PHONY: package
package: setup ## dist/environment.tar.gz and dist/cocu.zip, for spark-submit --archives and --py-files
	@scripts/package.sh

##@ The steps (CONFIG=configs/demo.yaml, ARGS="key=value ...")
JOBS := ingest embed_images find_duplicates select_pairs mine_concepts fit_probe build_index build_archives export_training report
.PHONY: $(subst _,-,$(JOBS)) import-embeddings curate
ingest: setup ## shards -> pairs, rejects
	@$(SUBMIT) spark_jobs/ingest.py --config $(CONFIG) $(ARGS)
embed-images: setup ## pairs -> image_embeddings
	@$(SUBMIT) spark_jobs/embed_images.py --config $(CONFIG) $(ARGS)
find-duplicates: setup ## image_embeddings -> duplicates: groups of near-duplicate images (ARGS="filters.duplicates=one": keep one of each)
	@$(SUBMIT) spark_jobs/find_duplicates.py --config $(CONFIG) $(ARGS)
select-pairs: setup ## filters (ARGS="filters.min_score=0.28 ...") -> selection, which the steps after it obey
	@$(SUBMIT) spark_jobs/select_pairs.py --config $(CONFIG) $(ARGS)
mine-concepts: setup ## captions -> concepts, pair_concepts
	@$(SUBMIT) spark_jobs/mine_concepts.py --config $(CONFIG) $(ARGS)
fit-probe: setup ## image_embeddings, pair_concepts -> probe
	@$(SUBMIT) spark_jobs/fit_probe.py --config $(CONFIG) $(ARGS)
build-index: setup ## image_embeddings, pair_concepts -> index
	@$(SUBMIT) spark_jobs/build_index.py --config $(CONFIG) $(ARGS)
build-archives: setup ## image_embeddings x index, probe -> archives
	@$(SUBMIT) spark_jobs/build_archives.py --config $(CONFIG) $(ARGS)
export-training: setup ## pairs, archives -> training_set
	@$(SUBMIT) spark_jobs/export_training.py --config $(CONFIG) $(ARGS)
report: setup ## all tables -> report.html
	@$(SUBMIT) spark_jobs/report.py --config $(CONFIG) $(ARGS)
import-embeddings: setup ## ready CLIP vectors (.npy) and captions -> pairs, image_embeddings, instead of the first two
	@$(SUBMIT) spark_jobs/import_embeddings.py --config $(CONFIG) $(ARGS)
curate: setup ## all of the above in one Spark application
	@$(SUBMIT) spark_jobs/pipeline.py --config $(CONFIG) $(ARGS)

.PHONY: watch publish train evaluate
watch: setup ## a run that is under way, from another terminal: units, rows, rates, rejects, memory, time left
	@python -m spark_jobs.watch --config $(CONFIG) $(ARGS)
publish: setup ## finished tables as plain folders, for SQL and other readers (ARGS="archives training_set")
	@python -m spark_jobs.publish --config $(CONFIG) $(ARGS)
train: setup ## training_set -> checkpoints; one process a GPU, or one (NP=4 HOSTS=a:2,b:2)
	@scripts/train.sh --config $(CONFIG) $(ARGS)
evaluate: setup ## zero-shot segmentation (ARGS="--checkpoint C --benchmark voc --data ROOT")
	@python -m evaluation.evaluate $(ARGS)

.PHONY: explain doctor
explain: setup ## one pair's archive in the terminal (KEY=corpus/shard/sample)
	@python -m spark_jobs.explain --config $(CONFIG) $(KEY) $(ARGS)
doctor: setup ## check driver, executors, GPUs, workspace, model before a long run
	@$(SUBMIT) spark_jobs/doctor.py --config $(CONFIG) $(ARGS)

##@ On a cluster (MASTER=..., JOB=pipeline; docs/clusters.md)
KINDS := local-cpu local-gpu standalone-cpu standalone-gpu yarn-cpu yarn-gpu kubernetes-cpu kubernetes-gpu
.PHONY: $(addprefix submit-,$(KINDS)) cluster-test fault-test soak
submit-standalone-gpu: ## submit-{local,standalone,yarn,kubernetes}-{cpu,gpu}: packs, then spark-submit
$(addprefix submit-,$(KINDS)): submit-%: package
	@scripts/submit.sh $(subst -, ,$*) $(JOB) -- --config $(CONFIG) $(ARGS)
cluster-test: setup ## a real master and two workers, packed environment, submit from elsewhere
	@python -m pytest -q tests/spark_jobs/test_cluster.py
fault-test: setup ## every fault of docs/clusters.md done to real processes; prints a table
	@python -m tests.faults $(ARGS)
soak: setup ## archives while executors are killed at random (ARGS="--minutes 30 --rows 1000000")
	@python -m tests.faults.soak $(ARGS)

##@ For developers
.PHONY: bench quality experiment demo-clip demo-groupvit format test-modern test-readers
BENCHES := task store groupvit reader decode evaluation embed archives search peer_index peer_embed extraction quality ingest export
bench: setup ## the benchmarks one after another into benchmarks.json (BENCHES="groupvit reader"; scale takes 7 minutes)
	@for name in $(BENCHES); do echo; echo "== bench_$$name"; python -m tests.benchmarks.bench_$$name $(ARGS) || exit 1; done
MODERN := configs storage corpora curation models evaluation spark_jobs training
test-modern: ## the tests of all that needs neither Petastorm nor Horovod, with today's packages (.venv-modern)
	@VENV=.venv-modern LOCK=requirements-modern.txt scripts/setup.sh
	@PATH="$(CURDIR)/.venv-modern/bin:$$PATH" PYSPARK_PYTHON=$(CURDIR)/.venv-modern/bin/python $(PYTEST) $(MODERN:%=tests/%) $(ARGS)
test-readers: setup ## tables and exports read by Hugging Face datasets, in an environment of its own (.venv-readers)
	@[ -x .venv-readers/bin/python ] || { $(BIN)/python -m venv .venv-readers && .venv-readers/bin/pip install -q datasets==5.2.0 pillow; }
	@python -m pytest -q tests/spark_jobs/test_publish.py tests/spark_jobs/exporting $(ARGS)
quality: setup ## rankings against what captions left out; prints a table, writes quality.json (DATA=folder like real-clip)
	@python -m tests.benchmarks.bench_quality $(if $(DATA),--data $(DATA)) --out quality.json $(ARGS)
experiment: CONFIG = configs/experiment.yaml
experiment: setup ## does curation help? trains with and without, compares (some hours; docs/experiment.md)
	@python -m experiment --config $(CONFIG) $(ARGS)
demo-clip: setup ## train the demo's tiny CLIP again
	@python -m demo.train_clip $(ARGS)
demo-groupvit: setup ## train the demo's GroupViT again, on 60,000 scenes curated for it (hours)
	@python -m demo.train_groupvit $(ARGS)
format: setup ## ruff --fix and ruff format
	@ruff check --fix . ; ruff format .

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
