# `make demo` and `make test` are all that a fresh machine needs. Every target may be run again at any time.
#
#   TORCH_ARGS   extra arguments of the one pip call that installs torch, e.g. to choose another build's index
#   EXTRAS       extras to install; on a machine with a GPU: EXTRAS=gpu,dev

VENV       ?= .venv
PYTHON     ?= python3
TORCH_ARGS ?=
EXTRAS     ?= cpu,dev
BIN        := $(VENV)/bin
DEMO       := build/demo

# Python keeps what it compiled, also where the shell says otherwise: without that each process of a test compiles torch
# and rewrites every assertion again, which doubles the time of a run.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-thorough test-machines test-lowest smoke-lowest test-slow test-ray test-browser check bench bench-peers load pictures notebooks clean

setup: $(VENV)/.ready

# torch comes first and by pip, so that one build of it is chosen and kept; uv installs the rest around it.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt $(TORCH_ARGS) torch uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# Draw a gallery with code, index it with the embedded model, and search it in every mode.
demo: setup
	$(BIN)/python -m retrieval.sample_images draw $(DEMO)/gallery
	$(BIN)/diffsim-index build $(DEMO)/gallery --index $(DEMO)/gallery.diffsim --model mini
	$(BIN)/diffsim-search $(DEMO)/gallery/oil/cat.png --index $(DEMO)/gallery.diffsim --mode style -k 5 --exclude-copies
	$(BIN)/python -m retrieval.sample_images search $(DEMO)/gallery $(DEMO)/gallery.diffsim $(DEMO)/demo.png
	@echo "look at it in a browser with: $(BIN)/diffsim-serve $(DEMO)/gallery.diffsim --open"

PYTEST     := $(BIN)/python -m pytest
# The files that have a test with a mark: collecting all takes twice the time, in each process.
MARKED      = $$(grep -rl --include='test_*.py' 'mark\.$(1)\b' tests)
# The tests whose numbers depend on the kernels that a processor and the number of threads select: these folders, without
# the files whose tests read, write, download, format, choose items or start commands.
NUMERIC    := tests/scoring tests/search tests/encoding tests/models tests/metrics \
              tests/evaluation/test_measures.py tests/evaluation/test_candidate_recall.py \
              tests/index_store/vectors/test_ivf.py tests/project/test_bench.py \
              $(addprefix --ignore=tests/,models/weights models/test_references.py models/vit/test_indexes.py \
              encoding/test_timing.py encoding/test_settings_of_strangers.py encoding/test_rule_of_pixels.py \
              search/filters search/text search/replicas/test_recovery.py search/replicas/test_plan.py \
              search/test_full_memory.py search/test_memory_cache.py)

test: setup
	$(PYTEST) -n 2 --dist loadgroup

# The tests that take two seconds of a processor or more; quicker ones of the same parts are among the others.
test-thorough: setup
	$(PYTEST) -n 2 --dist loadgroup -m thorough $(call MARKED,thorough)

# The numeric tests as other machines compute them: with AVX2 alone on two threads, and with no vector instructions.
test-machines: setup
	ATEN_CPU_CAPABILITY=avx2 FAISS_OPT_LEVEL=avx2 DIFFSIM_TEST_THREADS=2 $(PYTEST) -n 2 --dist loadgroup $(NUMERIC)
	ATEN_CPU_CAPABILITY=default FAISS_OPT_LEVEL=generic $(PYTEST) -n 2 --dist loadgroup $(NUMERIC)

# The lowest versions that pyproject.toml declares, on the lowest Python. Two bounds are not tried: torch stays the build
# of constraints.txt, because older ones for a CPU alone are in no registry; and faiss-gpu needs a GPU.
LOWEST        := build/lowest
LOWEST_PYTHON ?= python3.11

$(LOWEST)/.ready: pyproject.toml constraints.txt
	test -x $(LOWEST)/bin/python || $(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt $(TORCH_ARGS) torch uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -c constraints.txt \
	  -e '.[cpu,test]'
	touch $@

test-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadgroup

# The quick part of it: import every module, build an index of drawn pictures and search it.
smoke-lowest: $(LOWEST)/.ready
	$(LOWEST)/bin/python -m pytest tests/project/test_project.py
	$(LOWEST)/bin/python -m retrieval.sample_images draw build/lowest-demo/gallery
	$(LOWEST)/bin/diffsim-index build build/lowest-demo/gallery --index build/lowest-demo/gallery.diffsim --model cells
	$(LOWEST)/bin/diffsim-search build/lowest-demo/gallery/oil/cat.png --index build/lowest-demo/gallery.diffsim -k 3

# The page in a real browser; `apt-get install chromium` brings it. DIFFSIM_SCREENSHOTS=FOLDER keeps pictures of it.
test-browser: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS),browser]'
	$(PYTEST) -m browser tests/serving/browser

# All that `make test` leaves out, for a night: every golden number and the real-size model (8 GB of disk), every case of
# the tables of which it runs a slice (tests/slices.py), and all examples of the property tests, of which it draws some.
test-slow: setup
	DIFFSIM_TEST_EVERY=1 $(PYTEST) -m slow
	DIFFSIM_TEST_EVERY=1 $(PYTEST) -n 2 --dist loadgroup -m 'not slow and not gpu and not browser and not ray'

# Builds and searches on a Ray cluster of three nodes on this machine.
test-ray: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS),ray]'
	$(PYTEST) -m ray $(call MARKED,ray)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Speed, memory and bytes, as ratios measured in one run; writes build/bench.md and build/bench.json.
# DIFFSIM_DATA=FOLDER of real images adds what the storage codecs lose on them.
bench: setup
	$(BIN)/python -m tests.bench build/bench

# The same work beside what others would install, in an environment of its own: a table each, printed and kept as JSON in
# tests/bench/peers/results. QUICK=--quick shows within minutes that all of them run.
PEERS := build/peers
QUICK ?=

$(PEERS)/.ready: pyproject.toml constraints.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt $(TORCH_ARGS) torch uv
	$(PEERS)/bin/uv pip install --quiet --python $(PEERS)/bin/python -c constraints.txt -e '.[peers]'
	touch $@

bench-peers: $(PEERS)/.ready
	$(PEERS)/bin/python -m tests.bench.peers coarse $(QUICK)
	$(PEERS)/bin/python -m tests.bench.peers coarse --real $(QUICK)
	$(PEERS)/bin/python -m tests.bench.peers coarse --rows 1000000 $(QUICK)
	for table in rerank reads indexing tool; do $(PEERS)/bin/python -m tests.bench.peers $$table $(QUICK) || exit 1; done

# A server of 10,000 pictures under load by 1, 8 and 64 clients, and by more than its queue holds; prints a table.
load: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS),load]'
	$(BIN)/python -m tests.bench.serving build/load

# The README's pictures, one a mode.
pictures: demo
	$(BIN)/python -m retrieval.sample_images pictures $(DEMO)/gallery $(DEMO)/gallery.diffsim notebooks/pictures

# Run the notebooks offline, with the embedded model on drawn pictures, and keep their outputs.
notebooks: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS),notebooks]'
	OMP_NUM_THREADS=1 $(BIN)/python notebooks/execute.py

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
