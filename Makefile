# Sluice's build. `make` alone lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

CLANG ?= clang-19
CLANG_FORMAT ?= clang-format-19
LLVM_STRIP ?= llvm-strip-19
BIN := node_modules/.bin
ARCH_INCLUDE := /usr/include/$(shell uname -m)-linux-gnu

# -mcpu=v3 (32 bit ALU, jump32) is what the oldest supported kernel, 5.15, understands in full.
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -std=gnu11 -Wall -Wextra -Werror \
	-Ibpf/include -Ibpf/lib -I$(ARCH_INCLUDE)

BPF_HEADERS := $(wildcard bpf/include/*.h bpf/lib/*.h bpf/hooks/*.[ch])
BPF_OBJECTS := $(patsubst bpf/%.bpf.c,build/%.bpf.o,$(wildcard bpf/*.bpf.c))
BPF_DIST := $(patsubst build/%,dist/bpf/%,$(BPF_OBJECTS))
TS_SOURCES := $(shell find loader policy src -name '*.ts' ! -name '*.test.ts' 2>/dev/null)
TOOL_SOURCES := $(shell find bench scripts examples -name '*.ts' 2>/dev/null)
C_SOURCES := $(shell find bpf bench/tools src -name '*.[ch]' 2>/dev/null)
BENCHES := $(patsubst bench/%.ts,%,$(filter-out %.test.ts,$(wildcard bench/*.ts)))

.PHONY: help deps need-root bpf gen gen-check build tools check check-static format test test-kernels demo bench rootfs deb deb-test dev clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what is missing: Debian packages, npm packages
	@scripts/deps

need-root:
	@scripts/need-root

bpf: $(BPF_DIST) ## compile the BPF programs (clang-19)

build/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS)
	@mkdir -p build
	$(CLANG) $(BPF_CFLAGS) -c $< -o $@

# The shipped objects keep their BTF and lose the DWARF sections.
dist/bpf/%.bpf.o: build/%.bpf.o
	@mkdir -p dist/bpf
	@$(LLVM_STRIP) -g $< -o $@

# The generator is compiled on its own, unchecked: the rest may not type-check before it has run.
GENERATE = node scripts/bundle.js generator && node build/gen/loader/abi/generate.js

gen: build/sluice.bpf.o ## regenerate the TypeScript codecs from the object's BTF
	@$(GENERATE)

gen-check: build/sluice.bpf.o ## fail if the committed codecs are not what the object says
	@$(GENERATE) --check

# The CNI plugin: container runtimes start it for every container, so it is static and small. In a virtual machine
# it starts in half the time with musl: glibc asks the processor what it is, which leaves the machine 43 times, and has more
# pages.
MUSL_CC := $(or $(shell command -v musl-gcc),$(CC))

dist/cni/sluice-cni: src/cni/plugin/sluice-cni.c src/cni/plugin/json.h package.json
	@mkdir -p dist/cni
	$(MUSL_CC) -O2 -std=gnu11 -Wall -Wextra -Werror -static -s -DSLUICE_VERSION='$(shell sed -n 's/^ *"version": \("[^"]*"\).*/\1/p' package.json)' -o $@ $<

build: bpf dist/.built dist/cni/sluice-cni ## compile everything into dist/

dist/.built: $(TS_SOURCES) scripts/bundle.js tsconfig.json package.json
	@mkdir -p dist build
	@flock build/.bundle.lock node scripts/bundle.js package
	@touch $@

tools: build/js/.built

build/js/.built: $(TOOL_SOURCES) $(TS_SOURCES) scripts/bundle.js tsconfig.json package.json
	@mkdir -p build/js
	@flock build/.bundle.lock node scripts/bundle.js tools
	@touch $@

check-static:
	@scripts/check-static

check: bpf check-static ## everything that needs no root: types, format, lint, drift, unit tests
	@$(BIN)/vitest run --project unit

format: ## format TypeScript and C in place
	@$(BIN)/biome check --write .
	@$(if $(C_SOURCES),$(CLANG_FORMAT) -i $(C_SOURCES))

format-check-c:
	@$(if $(C_SOURCES),$(CLANG_FORMAT) --dry-run --Werror $(C_SOURCES))

# The static checks look at the types of everything, tests included: once is enough.
test: need-root deps ## everything; the last line is "N passed, N failed"
	@$(MAKE) -j2 build tools
	@scripts/run-tests

test-kernels: need-root deps ## load and smoke test on Debian's 6.1 and 6.12 kernels in QEMU (not part of `make test`)
	@$(MAKE) -s build tools
	@test/kernels/run

.PHONY: test-predict
test-predict: need-root deps ## 500 random changes of policy, and 500 of the host's: what was foreseen is what happens
	@$(MAKE) -s build tools
	@SLUICE_PREDICT_CHANGES=500 $(BIN)/vitest run --project kernel test/change/predict.test.ts test/host/foresight.test.ts

.PHONY: test-names
test-names: need-root deps ## domain names with 10,000 names of ten addresses each
	@$(MAKE) -s build tools
	@SLUICE_DOMAIN_NAMES=10000 $(BIN)/vitest run --project kernel test/change/domain-names.test.ts

demo: need-root deps ## a small shop with policies, NAT and IPv6 in network namespaces
	@$(MAKE) -s build tools
	@node build/js/scripts/demo.js

bench: need-root deps ## all benchmarks against their peers
	@$(MAKE) -s build tools
	@status=0; for name in $(BENCHES); do node build/js/bench/$$name.js || status=1; done; exit $$status

bench-%: need-root deps ## one benchmark: make bench-network
	@$(MAKE) -s build tools
	@test -f build/js/bench/$*.js || { echo "make: no benchmark named $* (there are: $(BENCHES))" >&2; exit 2; }
	@node build/js/bench/$*.js

dev: deps ## on each change: rebuild, regenerate, type-check, run the tests it affects
	@node scripts/dev.js

rootfs: need-root build ## the image's root file system, without a registry, and an agent that starts in it
	@scripts/rootfs

deb: deps ## Debian package: build/deb/sluice_VERSION_ARCH.deb, checked with lintian
	@$(MAKE) -s build
	@scripts/deb

deb-test: need-root deb ## install, use and purge the package on a Debian 12 root made by debootstrap
	@scripts/deb-test

clean: ## remove what was built (keeps node_modules)
	rm -rf build dist bench/out
