# Two commands: `make demo` (minutes, from nothing to a report) and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
MANIFEST ?= data/phantoms/manifest.csv
PATIENTS ?= 137
SEED ?= 1
OVERLAY ?=
ARGS ?=

READY := .venv/.ready
RBS := .venv/bin/rbs
FIT = $(RBS) fit --config $(1) $(addprefix --config ,$(OVERLAY)) --ckpt_path last
DATA = --data.manifest $(MANIFEST)
EVALUATE = $(RBS) evaluate $(1) --stage1 $(2)/stage1/f1.safetensors --stage2 $(2)/stage2/f1.safetensors \
	--teacher $(2)/adapt_sam/teacher --output $(2)/evaluation --overwrite

.PHONY: help setup demo test lint data pretrain-sam adapt-sam adapt-sam-ablation train-stage1 train-stage2 evaluate report clean-demo

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'
	@echo
	@echo "  Variables: MANIFEST=your/manifest.csv  OVERLAY=experiments/overlays/cpu.yaml  ARGS='--trainer.max_steps 10'"
	@echo "  An interrupted training resumes where it stopped when the same target is made again."

setup: $(READY)  ## Make .venv with the pinned dependencies

$(READY): pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt --editable '.[dev]'
	touch $@

test: $(READY)  ## Run the tests
	.venv/bin/python -m pytest $(ARGS)

lint: $(READY)  ## Check style, docstrings and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# ---- the full pipeline: phantoms (or your manifest) -> teacher -> stage 1 -> stage 2 -> table and report
data: $(MANIFEST)  ## Write the phantom cohort (PATIENTS=137 SEED=1)

data/phantoms/manifest.csv: | $(READY)
	$(RBS) phantom data/phantoms --patients $(PATIENTS) --seed $(SEED)

pretrain-sam: | $(READY)  ## Train the base weights of the small SAM (vit_t) on drawn shapes
	$(call FIT,experiments/pretrain_sam.yaml) $(ARGS)

adapt-sam: runs/adapt_sam/teacher/teacher.json  ## Adapt SAM to the regions of a bone scan (LoRA)

runs/adapt_sam/teacher/teacher.json: $(MANIFEST) | $(READY)
	$(call FIT,experiments/adapt_sam.yaml) $(DATA) $(ARGS)

adapt-sam-ablation: runs/adapt_sam/teacher/teacher.json  ## Dice of the alternatives: decoder alone, all of SAM
	for mode in decoder full; do \
	    $(call FIT,experiments/adapt_sam.yaml) --config experiments/ablations/teacher_$$mode.yaml $(DATA) $(ARGS); \
	done

train-stage1: runs/stage1/f1.safetensors  ## Train the first restorer, the one that ships

runs/stage1/f1.safetensors: $(MANIFEST) | $(READY)
	$(call FIT,experiments/stage1.yaml) $(DATA) $(ARGS)

train-stage2: runs/stage2/f1.safetensors  ## Train the cascade with the teacher's priors

runs/stage2/f1.safetensors: runs/stage1/f1.safetensors runs/adapt_sam/teacher/teacher.json
	$(call FIT,experiments/stage2.yaml) $(DATA) $(ARGS)

evaluate: runs/evaluation/summary.csv  ## Evaluate stages 1 and 2 beside the classical peers

runs/evaluation/summary.csv: runs/stage2/f1.safetensors
	$(call EVALUATE,$(MANIFEST),runs)

report: runs/report.html  ## Tables, pictures and curves on one page

runs/report.html: runs/evaluation/summary.csv
	$(RBS) report runs/evaluation runs/adapt_sam runs/stage1 runs/stage2 --output $@

# ---- the demo: the same path, small: a few children, short training
DEMO := runs/demo
DEMO_FIT = $(RBS) fit --config experiments/demo/$(1).yaml --config $(or $(OVERLAY),experiments/overlays/cpu.yaml) --ckpt_path last

demo: $(DEMO)/report.html $(DEMO)/restored.dcm  ## From nothing to runs/demo/report.html on two cores
	@echo "Open $(DEMO)/report.html"

$(DEMO)/phantoms/manifest.csv: | $(READY)
	$(RBS) phantom $(DEMO)/phantoms --patients 16 --seed 7

$(DEMO)/adapt_sam/teacher/teacher.json: $(DEMO)/phantoms/manifest.csv
	$(call DEMO_FIT,adapt_sam)

$(DEMO)/stage1/f1.safetensors: $(DEMO)/phantoms/manifest.csv
	$(call DEMO_FIT,stage1)

$(DEMO)/stage2/f1.safetensors: $(DEMO)/stage1/f1.safetensors $(DEMO)/adapt_sam/teacher/teacher.json
	$(call DEMO_FIT,stage2)

$(DEMO)/evaluation/summary.csv: $(DEMO)/stage2/f1.safetensors
	$(call EVALUATE,$(DEMO)/phantoms/manifest.csv,$(DEMO))

$(DEMO)/restored.dcm: $(DEMO)/stage2/f1.safetensors
	$(RBS) restore $(DEMO)/phantoms/P0016/rapid.dcm $@ --checkpoint $<

$(DEMO)/report.html: $(DEMO)/evaluation/summary.csv
	$(RBS) report $(DEMO)/evaluation $(DEMO)/adapt_sam $(DEMO)/stage1 $(DEMO)/stage2 --output $@

clean-demo:  ## Remove what the demo wrote
	rm -rf $(DEMO)
