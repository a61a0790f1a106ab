# Short commands in front of Meson. `make` alone lists them; CONTRIBUTING.md has the rest.
BUILD        = build
PREFIX       = /usr/local
DESTDIR      =
PROMPT       = Explain in three sentences why the sky is blue.
FUZZ_SECONDS = 60
SETUP        = meson setup --prefix=$(PREFIX)
SAN          = -Dbuildtype=debug -Doptimization=1 -Db_lundef=false -Dc_args=-fno-sanitize-recover=all
CLANG        = CC=$$(command -v clang || echo cc)

.PHONY: help all run demo-finetune test check unit asan tsan neon fuzz bench gen install format deps clean

help:
	@echo 'make run      build, fetch a small model, let it speak (PROMPT="...")'
	@echo 'make demo-finetune  teach that model something new in a few minutes, and compare'
	@echo 'make all      build the library and the program, build/tenon'
	@echo 'make test     everything that must pass'
	@echo 'make check    the checks of source and symbols only'
	@echo 'make unit     the unit tests only'
	@echo 'make asan     unit tests and fuzz corpus under AddressSanitizer and UBSan'
	@echo 'make tsan     tests of what runs in threads under ThreadSanitizer'
	@echo 'make neon     array tests built for 64-bit ARM, under qemu'
	@echo 'make fuzz     every fuzzer for a while (FUZZ_SECONDS=60 each)'
	@echo 'make bench    the measurements, into build/bench-results'
	@echo 'make gen      write the generated files anew from the tables of ops and options'
	@echo 'make format   let clang-format lay out the C files'
	@echo 'make install  headers, libraries, program (PREFIX=/usr/local, DESTDIR=)'
	@echo 'make deps     install the system packages to build, run and test'
	@echo 'make clean    remove build/'

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) product

$(BUILD)/build.ninja:
	@tools/deps.sh build
	@$(SETUP) $(BUILD)

run:
	@tools/deps.sh run
	@$(MAKE) --no-print-directory all
	@model=$$(tools/fetch_smollm2.sh) && $(BUILD)/tenon generate --model "$$model" --prompt "$(PROMPT)"

demo-finetune:
	@tools/deps.sh run
	@$(MAKE) --no-print-directory all
	@model=$$(tools/fetch_smollm2.sh) && \
		tools/demo_finetune.py $(BUILD)/tenon "$$model" $(BUILD)/demo-finetune

test:
	@tools/test.sh

check: all
	@tools/test.sh check

unit: $(BUILD)/build.ninja
	@meson test -C $(BUILD) --print-errorlogs

# The sanitizer builds use clang, so that both compilers see the whole tree.
$(BUILD)/asan/build.ninja:
	@$(CLANG) $(SETUP) $(BUILD)/asan $(SAN) -Db_sanitize=address,undefined

$(BUILD)/tsan/build.ninja:
	@$(CLANG) $(SETUP) $(BUILD)/tsan $(SAN) -Db_sanitize=thread

$(BUILD)/neon/build.ninja:
	@$(SETUP) $(BUILD)/neon --cross-file tools/aarch64.ini -Dllm=disabled

$(BUILD)/fuzz/build.ninja:
	@CC=clang $(SETUP) $(BUILD)/fuzz $(SAN) -Db_sanitize=address,undefined -Dfuzz=true

asan: $(BUILD)/asan/build.ninja
	@meson test -C $(BUILD)/asan --print-errorlogs

tsan: $(BUILD)/tsan/build.ninja
	@TSAN_OPTIONS=die_after_fork=0 meson test -C $(BUILD)/tsan --suite threads --print-errorlogs

neon: $(BUILD)/neon/build.ninja
	@meson test -C $(BUILD)/neon --print-errorlogs

fuzz: $(BUILD)/fuzz/build.ninja
	@ninja -C $(BUILD)/fuzz
	@tools/fuzz.sh $(BUILD)/fuzz $(FUZZ_SECONDS)

bench: all
	@bench/run.sh

gen: # twice: the manual page is written by the program, which is built from the tables
	@tools/gen.sh && $(MAKE) --no-print-directory all && tools/gen.sh

format:
	@clang-format -i $$(tools/files.sh)

install: $(BUILD)/build.ninja
	@meson configure $(BUILD) --prefix=$(PREFIX)
	@$(MAKE) --no-print-directory all
	@DESTDIR="$(DESTDIR)" meson install -C $(BUILD) --no-rebuild

deps:
	@tools/deps.sh build run test

clean:
	@rm -rf $(BUILD)
