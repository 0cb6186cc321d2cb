# Two commands: `make demo` (minutes, from nothing to a report) and `make test`. `make help` lists the rest.
# DATA=endoscopy makes the same targets from colour frames instead of bone scans.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Containers often forbid Python to keep what it has compiled: each process would compile PyTorch and Lightning anew,
# half a minute.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
DATA ?= bones
EXTRAS ?= dev
PHANTOMS := data/phantoms/manifest.csv
PATIENTS ?= 137
SEED ?= 1
SEEDS ?=
STEPS ?= 30
WORKERS ?= 1
OVERLAY ?=
# 32-true where the processor has no bfloat16, which some experiments ask for and which it would imitate ten times as slowly.
PRECISION ?=
RECIPE ?= joint
ARGS ?=

# What differs between the tracks: where experiments, data and results lie, and how the data are named to a training.
ifeq ($(DATA),bones)
EXPERIMENTS ?= experiments/
RUNS ?= runs
MANIFEST ?= $(PHANTOMS)
TEACHER_MANIFEST ?= $(PHANTOMS)
THESE_DATA = $(MANIFEST)
else ifeq ($(DATA),endoscopy)
EXPERIMENTS ?= experiments/endoscopy/
PRESET ?= mixed
RUNS ?= runs/endoscopy/$(PRESET)
FRAMES ?=
MUCOSA ?= data/mucosa/manifest.csv
VIDEOS ?= 60
MANIFEST ?= $(if $(FRAMES),$(or $(filter %.csv,$(FRAMES)),$(RUNS)/frames.csv),$(MUCOSA))
TEACHER_MANIFEST ?= $(MANIFEST)
PEERS ?= unet dncnn restormer swinir
DEGRADED = --data.preset $(PRESET)
THESE_DATA = $(MANIFEST) PRESET=$(PRESET)$(if $(FRAMES), FRAMES=$(FRAMES))
SEGMENT = --segmenter $(RUNS)/adapt_sam/teacher
# Collections often come with frames to train and to validate, and none to test.
SPLIT ?= $(if $(shell grep -m 1 ',test,' $(MANIFEST)),test,val)
else
$(error DATA is bones or endoscopy, not $(DATA))
endif
EXPERIMENT ?= $(EXPERIMENTS)stage2.yaml

READY := .venv/.ready
RBS := .venv/bin/rbs
# Arguments reach the training that was asked for by name, not those it needs; and they always train anew.
ASKED = $(if $(filter $(1),$(MAKECMDGOALS)),$(ARGS))
ANEW = $(if $(call ASKED,$(1)),anew)
FIT = $(RBS) fit --config $(1) $(addprefix --config ,$(OVERLAY)) --trainer.default_root_dir $(RUNS) --ckpt_path last \
	$(addprefix --trainer.precision ,$(PRECISION))
FROM = --data.manifest $(1) $(DEGRADED)
STEP = $(call FIT,$(EXPERIMENTS)$(1).yaml) --name $(1)
CASCADE = --model.init_args.init_from $(RUNS)/stage1/restorer.safetensors --model.init_args.prior.teacher $(RUNS)/adapt_sam/teacher
STAGE2 = $(if $(filter phased,$(RECIPE)),phased_b,stage2)
EVALUATE = $(RBS) evaluate $(1) --stage1 $(2)/stage1/restorer.safetensors --stage2 $(2)/$(STAGE2)/restorer.safetensors \
	--teacher $(2)/adapt_sam/teacher $(SEGMENT) $(addprefix --split ,$(SPLIT)) --output $(2)/evaluation --overwrite

.PHONY: help setup demo test test-slow results docs fuzz lint profile bench data train-segmenter train-describer pretrain-sam adapt-sam adapt-sam-ablation train-stage1 train-stage2 train-uncertainty train-x2 train-degrader reproduce-weights ablation sweep evaluate benchmark report \
	demo-endoscopy clean-demo anew same-data always

help:  ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'
	@echo
	@echo "  Variables: MANIFEST=your/manifest.csv  RUNS=folder/of/runs  OVERLAY=experiments/overlays/cpu.yaml  PRECISION=32-true"
	@echo "             ARGS='--trainer.max_steps 10' for the one target that is named"
	@echo "  DATA=endoscopy  colour frames: FRAMES=folder or manifest (drawn ones without), PRESET=mixed, denoise, deblur,"
	@echo "                  low-light or x2: what they are degraded by; SPLIT=val where there is no test split"
	@echo "  An interrupted training goes on from its last whole epoch when the same target is made again."

# EXTRAS=dev,bm3d adds BM3D, whose licence is for non-commercial use, and with it the tests that need it.
setup: $(READY)  ## Make .venv with all extras and tools, pinned

$(READY): pyproject.toml setup.py constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt uv
	.venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# Two processes of one thread: most tests cannot use a second core, and a file's fixtures are made once. Files keep their
# order, slow integration before quick units, so that both processes end together.
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)  ## Run the tests (11 minutes of two cores)
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(READY)  ## Run the tests that take a minute each: several processes, benchmarks, the wheel
	$(PYTEST) -m slow $(ARGS) $$(grep -rl --include='test_*.py' 'mark\.slow' tests)

results: $(READY)  ## Write docs/results.md and the headline table of README.md from docs/results/*.csv
	.venv/bin/python scripts/results.py

docs: $(READY)  ## Build the documentation site into build/site, broken links are errors
	.venv/bin/mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

fuzz: $(READY)  ## Read 20 000 damaged scans, load 5 000 damaged weights and notes (5 minutes of one core)
	.venv/bin/python tests/fuzz_reader.py --files 20000 $(ARGS)
	.venv/bin/python tests/fuzz_weights.py --files 5000 $(ARGS)

# Whatever differs between two runs of it, such as the load of the machine, is the same within one: compare ratios.
bench: $(READY)  ## Measure restoring and training, results kept in runs/bench (25 minutes of two cores): ONLY="restore data"
	.venv/bin/python -m pytest $(addprefix benchmarks/bench_,$(addsuffix .py,$(or $(ONLY),restore segment train data teacher))) \
	    --benchmark-storage=runs/bench --benchmark-save=bench --benchmark-columns=median,iqr,rounds $(ARGS)
	.venv/bin/python benchmarks/table.py runs/bench

lint: $(READY)  ## Check style, docstrings, types and the direction of imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# ---- the full pipeline: phantoms (or your manifest) -> teacher -> stage 1 -> stage 2 -> table and report
data: $(MANIFEST)  ## Write the phantom cohort (PATIENTS=137 SEED=1)

$(PHANTOMS): | $(READY)
	$(RBS) simulate $(@D) --patients $(PATIENTS) --seed $(SEED)

ifeq ($(DATA),endoscopy)
$(MUCOSA): | $(READY)
	$(RBS) simulate $(@D) --kind endoscopy --videos $(VIDEOS) --frames 6 --seed $(SEED)

$(RUNS)/frames.csv: | $(READY)
	$(RBS) index $(FRAMES) -o $@ --kind endoscopy
endif

# Results of one manifest are never mixed with those of another.
same-data:
	@mkdir -p $(RUNS); test -e $(RUNS)/.manifest || echo '$(THESE_DATA)' > $(RUNS)/.manifest
	@test "$$(cat $(RUNS)/.manifest)" = '$(THESE_DATA)' || { echo "$(RUNS)/ holds results of MANIFEST=$$(cat $(RUNS)/.manifest);" \
	    "give that, or another folder with RUNS=..." >&2; exit 2; }

train-segmenter: $(RUNS)/segment/segmenter.safetensors  ## Train the segmenter: regions of the skeleton, or lesions in frames

$(RUNS)/segment/segmenter.safetensors: $(TEACHER_MANIFEST) $(EXPERIMENTS)segment.yaml $(call ANEW,train-segmenter) | $(READY)
	$(call STEP,segment) $(call FROM,$(TEACHER_MANIFEST)) $(call ASKED,train-segmenter)

# FURTHER: phantoms that train, all of them, beside those of the split train.
DESCRIBED = $(call FROM,$(PHANTOMS)) $(if $(FURTHER),--data.init_args.more '["$(FURTHER)"]')
ENCODER = $(RUNS)/describe/semantic.safetensors
train-describer: $(PHANTOMS) | $(READY)  ## Train the network of `rbs describe`: encoder and decoder, then the decoder alone (an hour of one core)
	$(call FIT,experiments/describe.yaml) $(DESCRIBED) $(ARGS)
	$(call FIT,experiments/describe_decoder.yaml) $(DESCRIBED) --model.init_args.encoder $(ENCODER) --data.init_args.encoder $(ENCODER) $(ARGS)

SAM = $(RUNS)/pretrain_sam/sam_vit_t.safetensors
pretrain-sam: $(SAM)  ## Train the base weights of the small SAM (vit_t) on drawn shapes

$(SAM): experiments/pretrain_sam.yaml $(call ANEW,pretrain-sam) | $(READY)
	$(call FIT,experiments/pretrain_sam.yaml) $(call ASKED,pretrain-sam)

adapt-sam: $(RUNS)/adapt_sam/teacher/teacher.json  ## Adapt SAM to the regions of a bone scan (LoRA, on phantoms), or to lesions in frames

TEACH = $(call FROM,$(TEACHER_MANIFEST)) --model.init_args.output $(RUNS)/adapt_sam
$(RUNS)/adapt_sam/teacher/teacher.json: $(TEACHER_MANIFEST) $(EXPERIMENTS)adapt_sam.yaml $(call ANEW,adapt-sam) | $(READY)
	$(call STEP,adapt_sam) $(TEACH) $(call ASKED,adapt-sam)

adapt-sam-ablation: $(RUNS)/adapt_sam/teacher/teacher.json  ## The alternatives: decoder alone, DoRA, (IA)3, all of SAM, SAM untouched
	for mode in decoder dora ia3 full; do \
	    $(call FIT,$(EXPERIMENTS)adapt_sam.yaml --config experiments/ablations/teacher_$$mode.yaml) $(TEACH) $(ARGS); \
	done
	$(call FIT,$(EXPERIMENTS)adapt_sam.yaml --config experiments/ablations/teacher_untouched.yaml) \
	    $(call FROM,$(TEACHER_MANIFEST)) --model.init_args.output $(RUNS)/adapt_sam_untouched

train-stage1: $(RUNS)/stage1/restorer.safetensors  ## Train the first restorer, the one that ships

$(RUNS)/stage1/restorer.safetensors: $(MANIFEST) $(EXPERIMENTS)stage1.yaml $(call ANEW,train-stage1) | $(READY) same-data
	$(call STEP,stage1) $(call FROM,$(MANIFEST)) $(call ASKED,train-stage1)

train-stage2: $(RUNS)/$(STAGE2)/restorer.safetensors  ## Train the cascade with the teacher's priors: RECIPE=joint or phased

CASCADES = $(RUNS)/stage2/restorer.safetensors $(RUNS)/phased_a/cascade.safetensors $(RUNS)/phased_b/restorer.safetensors
$(CASCADES): $(RUNS)/%: $(RUNS)/stage1/restorer.safetensors $(RUNS)/adapt_sam/teacher/teacher.json $(call ANEW,train-stage2) | $(READY) same-data
	$(call STEP,$(notdir $(@D))) $(call FROM,$(MANIFEST)) $(CASCADE) $(if $(findstring phased_b,$*),--model.init_args.cascade_from \
	    $(RUNS)/phased_a/cascade.safetensors) $(call ASKED,train-stage2)

$(RUNS)/stage2/restorer.safetensors: $(EXPERIMENTS)stage2.yaml
$(RUNS)/phased_a/cascade.safetensors: $(EXPERIMENTS)phased_a.yaml
$(RUNS)/phased_b/restorer.safetensors: $(EXPERIMENTS)phased_b.yaml $(RUNS)/phased_a/cascade.safetensors

# It lies beside the weights it is bound to: that is where `rbs restore --uncertainty` looks for it.
train-uncertainty: $(RUNS)/stage1/restorer_uncertainty.safetensors  ## Train what states the uncertainty of stage 1 (phantoms only)

$(RUNS)/stage1/restorer_uncertainty.safetensors: $(RUNS)/stage1/restorer.safetensors experiments/uncertainty.yaml $(call ANEW,train-uncertainty) | same-data
	$(call STEP,uncertainty) $(call FROM,$(MANIFEST)) --model.init_args.f1 $< --model.init_args.output $(@D) $(call ASKED,train-uncertainty)

# PART=swinir or PART=semantic ARGS='--model.f1.init_args.semantic FILE' trains another one.
PART ?= nafnet
train-x2: $(RUNS)/enlarge/$(PART)/restorer.safetensors  ## Train what restores coarse scans on twice the matrix (phantoms only)

$(RUNS)/enlarge/%/restorer.safetensors: $(MANIFEST) experiments/enlarge/nafnet.yaml experiments/enlarge/%.yaml $(call ANEW,train-x2) | $(READY) same-data
	$(call FIT,experiments/enlarge/nafnet.yaml $(if $(filter nafnet,$*),,--config experiments/enlarge/$*.yaml)) $(call FROM,$(MANIFEST)) $(call ASKED,train-x2)

# How another camera degrades, of good scans with truth, or clean frames, and poor ones of other patients; then
# make train-stage1 MANIFEST=$(GOOD) ARGS='--data.pairs expectation --data.degrader $(RUNS)/degradation/munit/degrader.safetensors'
MODEL ?= munit
train-degrader: | $(READY)  ## Learn how poor scans or frames differ from good ones of other patients: GOOD=manifest POOR=manifest (MODEL=munit, diffusion)
	$(if $(and $(GOOD),$(POOR)),,$(error give GOOD=manifest and POOR=manifest))
	$(call FIT,$(EXPERIMENTS)degradation/$(MODEL).yaml) --name degradation/$(MODEL) --data.good $(GOOD) --data.poor $(POOR) $(ARGS)

# What ships, each file a target: what has been trained is not trained again, and `OMP_NUM_THREADS=1 make -j 2` trains two at
# once. The other weights have targets of their own: train-x2, train-describer.
SHIP := data/ship/manifest.csv
$(SHIP): | $(READY)
	$(RBS) simulate $(@D) --patients 300 --seed 2026

RESTORER = $(RUNS)/shipped_texture/restorer.safetensors
$(RUNS)/shipped_restorer/restorer.safetensors: $(SHIP) experiments/shipped_restorer.yaml
	$(call FIT,experiments/shipped_restorer.yaml)

$(RESTORER): $(RUNS)/shipped_restorer/restorer.safetensors experiments/shipped_texture.yaml
	$(call FIT,experiments/shipped_texture.yaml) --model.init_args.init_from $<

UNCERTAINTY = $(RUNS)/shipped_texture/restorer_uncertainty.safetensors
$(UNCERTAINTY): $(RESTORER) $(PHANTOMS) experiments/uncertainty.yaml
	$(call FIT,experiments/uncertainty.yaml) --name shipped_uncertainty --model.init_args.f1 $< --model.init_args.output $(@D) \
	    --trainer.max_epochs 2 --trainer.check_val_every_n_epoch 2

SEGMENTER = $(RUNS)/segment/calibrated.safetensors
$(SEGMENTER): $(RUNS)/segment/segmenter.safetensors
	.venv/bin/python scripts/calibrate_segmenter.py $< $@ --manifest $(PHANTOMS)

# Stage 1 of the table is what ships, no. 2 what was trained here.
reproduce-weights: $(UNCERTAINTY) $(SEGMENTER) $(SAM) $(RUNS)/adapt_sam/teacher/teacher.json  ## Train restorer, uncertainty, segmenter and SAM that ship again (4 hours of two cores) and tell how close they come
	$(RBS) segment $(PHANTOMS) $(RUNS)/segment/test --segmenter $(SEGMENTER) --score --skip-existing
	$(RBS) evaluate $(PHANTOMS) --stage1 rbs/weights/restorer.safetensors --stage1 $(RESTORER) --against stage1 \
	    --output $(RUNS)/reproduced --overwrite
	@echo "Dice of the teacher, and above of the segmenter, beside those of the cards (rbs/weights/README.md):"
	@cat $(RUNS)/adapt_sam/dice.csv

# A teacher that saw no test child: TEACHER=path. STAGE1=path starts all rows from those weights, ELSEWHERE="name=manifest.csv" and
# REAL="scans" score on more.
NEEDED = $(RUNS)/stage1/restorer.safetensors $(RUNS)/adapt_sam/teacher/teacher.json
ABLATION = $(or $(FILE),sweeps/ablations/$(if $(filter endoscopy,$(DATA)),endoscopy,semantics).yaml)
TEACHER ?= $(RUNS)/adapt_sam/teacher
ifeq ($(DATA),endoscopy)
STAGE1 ?= $(RUNS)/stage1/restorer.safetensors
endif
ablation: $(MANIFEST) $(if $(findstring stage1.yaml,$(ABLATION)),,$(TEACHER) $(STAGE1)) | $(READY) same-data  ## What semantics are worth, or FILE=sweeps/ablations/stage1.yaml: all trained and compared (SEEDS="1 2", WORKERS=2)
	$(RBS) ablation $(ABLATION) --manifest $(MANIFEST) $(addprefix --split ,$(SPLIT)) $(if $(SEEDS),--seeds $(SEEDS)) \
	    $(if $(findstring stage1.yaml,$(ABLATION)),,--teacher $(TEACHER) $(addprefix --stage1 ,$(STAGE1))) \
	    --output $(RUNS)/ablation/$(notdir $(basename $(ABLATION))) --workers $(WORKERS) \
	    $(if $(ELSEWHERE),--elsewhere $(ELSEWHERE)) $(if $(REAL),--real $(REAL)) \
	    --fit $(addprefix --config ,$(OVERLAY)) $(DEGRADED) $(ARGS)

$(RUNS)/adapt_sam/teacher: $(RUNS)/adapt_sam/teacher/teacher.json

# Without what a training does besides: no validation, no W&B. ARGS='--config experiments/ablations/prior_online.yaml' adds overlays.
profile: $(if $(findstring stage2,$(EXPERIMENT)),$(NEEDED),$(MANIFEST)) | $(READY)  ## Where a training step's time goes: EXPERIMENT=experiments/stage1.yaml STEPS=30
	$(RBS) fit --config $(EXPERIMENT) $(addprefix --config ,$(OVERLAY)) --name profile/$(notdir $(basename $(EXPERIMENT))) --wandb disabled \
	    $(if $(shell grep manifest: $(EXPERIMENT)),$(call FROM,$(MANIFEST))) $(if $(findstring stage2,$(EXPERIMENT)),$(CASCADE)) \
	    --trainer.default_root_dir $(RUNS) --trainer.profiler rbs.tasks.profiler.StepProfiler --trainer.max_steps $(STEPS) \
	    --trainer.limit_val_batches 0 --trainer.enable_progress_bar false $(ARGS)

sweep: $(MANIFEST) | $(READY) same-data  ## Search hyper-parameters: FILE=sweeps/stage1.yaml (WORKERS=1)
	$(RBS) sweep $(or $(FILE),sweeps/stage1.yaml) --output $(RUNS)/sweeps/$(notdir $(basename $(or $(FILE),sweeps/stage1.yaml))) \
	    --workers $(WORKERS) --fit $(addprefix --config ,$(OVERLAY)) --data.manifest $(MANIFEST) $(ARGS)

evaluate: $(RUNS)/evaluation/settings.json  ## Evaluate stages 1 and 2 beside the classical peers

$(RUNS)/evaluation/settings.json: $(RUNS)/$(STAGE2)/restorer.safetensors
	$(call EVALUATE,$(MANIFEST),$(RUNS))

# Trainings that are finished are skipped, interrupted ones go on; stage 1 is the peer they all are compared with.
PEERS ?= $(basename $(notdir $(wildcard experiments/peers/*.yaml)))
BENCHMARKED = $(RUNS)/stage1 $(PEERS:%=$(RUNS)/peers/%)

benchmark: $(RUNS)/benchmark/benchmark.md  ## Train the peers and compare all: PEERS="unet dncnn" chooses some
	@cat $<

$(RUNS)/benchmark/benchmark.md: $(BENCHMARKED:%=%/restorer.safetensors) $(RUNS)/benchmark/peers
	$(RBS) benchmark $(MANIFEST) $(BENCHMARKED) $(addprefix --split ,$(SPLIT)) --output $(@D) --overwrite

$(RUNS)/peers/%/restorer.safetensors: $(MANIFEST) $(EXPERIMENTS)stage1.yaml experiments/peers/%.yaml | $(READY) same-data
	$(call FIT,$(EXPERIMENTS)stage1.yaml --config experiments/peers/$*.yaml) $(call FROM,$(MANIFEST))

# Other peers make another table; the same ones leave it as it is.
$(RUNS)/benchmark/peers: always
	@mkdir -p $(@D); test "$$(cat $@ 2>/dev/null)" = '$(PEERS)' || echo '$(PEERS)' > $@

report: $(RUNS)/report.html  ## Tables, pictures and curves on one page, with what else lies in RUNS

$(RUNS)/report.html: $(RUNS)/evaluation/settings.json always
	$(RBS) report $(addprefix $(RUNS)/,evaluation adapt_sam stage1 $(STAGE2)) \
	    $(wildcard $(addprefix $(RUNS)/,benchmark ablation sweeps)) --output $@

# ---- the demo: restored by the shipped weights first, then the whole path, small
DEMO := runs/demo
DEMO_FIT = $(RBS) fit --config demo/$(1) --config $(or $(OVERLAY),overlays/cpu) --ckpt_path last

demo: $(DEMO)/report.html  ## From nothing to runs/demo/report.html: pictures after minutes, trainings after them
	@echo "demo: finished; open $(DEMO)/report.html"

$(DEMO)/phantoms/manifest.csv: | $(READY)
	@echo "demo 1 of 6: drawing 12 phantom children as DICOM, half a minute"
	$(RBS) simulate $(DEMO)/phantoms --kind scans --patients 12 --seed 7

$(DEMO)/restored.dcm: $(DEMO)/phantoms/manifest.csv
	@echo "demo 2 of 6: restoring a scan with the shipped weights, evaluating them, first report: 2 minutes"
	rm -f $@
	$(RBS) restore $(DEMO)/phantoms/P0012/rapid.dcm $@

$(DEMO)/shipped/settings.json: $(DEMO)/restored.dcm
	$(RBS) evaluate $(DEMO)/phantoms/manifest.csv --stage1 shipped --output $(@D) --overwrite
	$(RBS) report $(@D) --output $(DEMO)/report.html
	@echo "demo: the first report is at $(DEMO)/report.html; training follows"

$(DEMO)/adapt_sam/teacher/teacher.json: $(DEMO)/shipped/settings.json
	@echo "demo 3 of 6: adapting the small SAM, a minute"
	$(call DEMO_FIT,adapt_sam)

$(DEMO)/stage1/restorer.safetensors: $(DEMO)/shipped/settings.json
	@echo "demo 4 of 6: training the first restorer, 2 minutes"
	$(call DEMO_FIT,stage1)

$(DEMO)/stage2/restorer.safetensors: $(DEMO)/adapt_sam/teacher/teacher.json $(DEMO)/stage1/restorer.safetensors
	@echo "demo 5 of 6: training the cascade with semantic priors, a minute"
	$(call DEMO_FIT,stage2)

$(DEMO)/evaluation/settings.json: $(DEMO)/stage2/restorer.safetensors
	@echo "demo 6 of 6: evaluating all, final report: a minute"
	$(RBS) evaluate $(DEMO)/phantoms/manifest.csv --stage1 shipped --stage1 $(DEMO)/stage1/restorer.safetensors \
	    --stage2 $< --teacher $(DEMO)/adapt_sam/teacher --output $(@D) --overwrite

$(DEMO)/report.html: $(DEMO)/evaluation/settings.json
	$(RBS) report $(DEMO)/evaluation $(DEMO)/adapt_sam $(DEMO)/stage1 $(DEMO)/stage2 --output $@

# ---- the demo of colour frames: the same targets with short experiments, on drawn frames or on those of FRAMES
FRAMES_DEMO = runs/demo_endoscopy/$(or $(basename $(notdir $(FRAMES:/=))),mucosa)

demo-endoscopy:  ## From nothing, or from FRAMES, to a report on restored colour frames
	$(MAKE) DATA=endoscopy EXPERIMENTS=experiments/demo/endoscopy_ RUNS=$(FRAMES_DEMO) \
	    $(if $(FRAMES),,MUCOSA=$(FRAMES_DEMO)/frames/manifest.csv VIDEOS=16 SEED=7) \
	    OVERLAY=$(or $(OVERLAY),experiments/overlays/cpu.yaml) report
	@echo "Open $(FRAMES_DEMO)/report.html"

clean-demo:  ## Remove what the demos wrote
	rm -rf $(DEMO) runs/demo_endoscopy
