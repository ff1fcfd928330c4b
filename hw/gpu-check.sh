#!/bin/sh
# Proves a CUDA device: the laws of a device and the conformance tests on it, with a second device as a tier where there is
# one; the sanitizer where there is one; the kernels' rates, those of copies between devices and of files by GPUDirect
# Storage where the machine has them; calibration, validation, recurrent layers, and PyTorch beside all of it where that is
# there: its copies and products, and its FlashAttention beside the recurrent layers. Writes one JSON file. Within ten minutes.
#
#   hw/gpu-check.sh build DIR        on a machine with Rust: puts the binaries into DIR
#   hw/gpu-check.sh run DIR OUT.json [DEVICE]
#                                    on a machine with a driver, no Rust needed, from the root of the project
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)

binary_of() { # the file a cargo test target was built to: crate, target
    cargo test --release -p "$1" --test "$2" --no-run 2>&1 | sed -n 's/.*(\(.*\))$/\1/p' | tail -n 1
}

build() {
    cd "$root"
    mkdir -p "$1"
    cargo build --release
    target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    cp "$target/release/hotset" "$1/hotset"
    cp "$(binary_of hotset-hw lockstep)" "$1/laws"
    cp "$(binary_of hotset hotset)" "$1/conformance"
    cargo build --release -p hotset-hw --example kernel_rates --example path_rates
    cp "$target/release/examples/kernel_rates" "$target/release/examples/path_rates" "$1/"
    strip "$1/hotset" "$1/laws" "$1/conformance" "$1/kernel_rates" "$1/path_rates"
}

# Runs a step with a limit in seconds; its output goes to a log, its verdict into $verdict.
step() { # name, seconds, command...
    name=$1 seconds=$2
    shift 2
    echo "== $name"
    begin=$(date +%s)
    if timeout "$seconds" "$@" > "$work/$name.out" 2> "$work/$name.err"; then verdict='"passed"'; else verdict="\"failed with $?\""; fi
    verdict="$verdict, \"${name}_s\": $(($(date +%s) - begin))"
    tail -n 3 "$work/$name.out" "$work/$name.err" || true
    # Read as JSON later: what was said, without what JSON cannot hold.
    said=$(tail -n 15 "$work/$name.out" "$work/$name.err" | tr -d '"\\' | tr '\n\t' '| ' | cut -c 1-2000)
    steps="$steps${steps:+, }\"$name\": $verdict, \"${name}_said\": \"$said\""
}

# A file as a JSON value, or null where it holds none.
value() { if [ -s "$1" ]; then cat "$1"; else echo null; fi; }

run() {
    bin=$(cd "$1" && pwd) out=$2 device=${3:-cuda:0}
    work=$(mktemp -d) steps=
    trap 'rm -rf "$work"' EXIT
    cd "$root"
    export HOTSET_TEST_DEVICE="$device"
    number=${device#cuda:}
    if [ "$(nvidia-smi --list-gpus 2> /dev/null | wc -l)" -gt 1 ]; then
        export HOTSET_TEST_PEER=$((number == 0))
    fi
    step laws 60 "$bin/laws" --test-threads=4
    step conformance 45 "$bin/conformance" conformance --test-threads=4
    if command -v compute-sanitizer > /dev/null; then
        step memcheck 60 compute-sanitizer --error-exitcode 9 "$bin/laws" --test-threads=1 both::
        step racecheck 45 compute-sanitizer --tool racecheck --error-exitcode 9 "$bin/laws" --test-threads=1 both::
    fi
    unset HOTSET_TEST_DEVICE HOTSET_TEST_PEER
    step kernels 50 "$bin/kernel_rates" "$number"
    step paths 40 "$bin/path_rates" "$number"
    step calibrate 110 "$bin/hotset" calibrate --device "$device" --name checked --format json -o "$work/machine.yaml"
    step validate 80 "$bin/hotset" validate scenarios/moe-on-gpu.yaml --device "$device" \
        --machine "$work/machine.yaml" --live --format json
    step states 35 "$bin/hotset" bench states --device "$device" --format json
    if python3 -c 'import torch' 2> /dev/null; then
        step torch 50 python3 hw/peers/torch_offload.py
        step mixers 20 python3 hw/peers/torch_mixers.py
    fi
    gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null | head -n 1 | tr -d '"\\')
    {
        printf '{"date": "%s", "device": "%s", "gpu": "%s",\n' "$(date -u +%Y-%m-%d)" "$device" "$gpu"
        printf '"steps": {%s},\n' "$steps"
        printf '"kernels": %s,\n"paths": %s,\n"calibrate": %s,\n"validate": %s,\n"torch": %s,\n' \
            "$(value "$work/kernels.out")" "$(value "$work/paths.out")" "$(value "$work/calibrate.out")" "$(value "$work/validate.out")" "$(value "$work/torch.out")"
        printf '"states": %s,\n"mixers": %s}\n' "$(value "$work/states.out")" "$(value "$work/mixers.out")"
    } > "$out.part"
    mv "$out.part" "$out"
    echo "wrote $out"
}

case "${1:-}" in
    build) build "${2:?a folder for the binaries}" ;;
    run) run "${2:?the folder with the binaries}" "${3:?the file to write}" "${4:-cuda:0}" ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
