#!/usr/bin/env bash
# A compiler for CUDA from Python's package index, for machines that have none, and builds with it. No GPU is needed.
#
#     scripts/cuda-toolchain.sh build [CARGO OPTIONS]     # one binary that starts with and without a GPU
#     scripts/cuda-toolchain.sh check [CARGO OPTIONS]     # cargo check with a compiler that compiles nothing: no download
#     eval "$(scripts/cuda-toolchain.sh exports)"         # the settings of `build` for this shell
#
# Where CUDA_HOME (or the nvcc on the PATH) names a toolkit, `build` takes that. Otherwise 300 MB of packages go to
# DISTILL_CUDA_TOOLCHAIN, else to the user's cache. CUDA_COMPUTE_CAP is the oldest card that the binary runs on (80: from
# Ampere on).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
place=${DISTILL_CUDA_TOOLCHAIN:-${XDG_CACHE_HOME:-$HOME/.cache}/distill/cuda-13.0}
target=$(rustc -vV | sed -n 's/^host: //p')
packages=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85
    nvidia-cuda-runtime==13.0.96)

# Writes an executable file.
script() {
    mkdir -p "$(dirname "$1")"
    cat >"$1.$$"
    chmod +x "$1.$$"
    mv "$1.$$" "$1"
}

# The packages, and libraries that satisfy the linker: the real ones are looked for when the program runs.
fetch() {
    if [ ! -f "$place/whole" ]; then
        echo "fetching a compiler for CUDA into $place ..." >&2
        python3 -m pip install -q --upgrade --no-deps --target "$place/packages" "${packages[@]}" >&2
        touch "$place/whole"
    fi
    home=$place/packages/nvidia/cu13
    mkdir -p "$place/lib"
    for library in cuda cublas cublasLt curand nvrtc cudnn nccl; do
        printf '!<arch>\n' >"$place/lib/lib$library.a"
    done
    cp "$home/lib/libcudart_static.a" "$place/lib/libcudart.a"
    export CUDA_HOME=$home CUDARC_CUDA_VERSION=13000
}

# nvcc, but for candle's kernels of quantized models, which are most of the time and of the binary and never called.
wrap() {
    nvcc=${CUDA_HOME:+$CUDA_HOME/bin/nvcc}
    nvcc=${nvcc:-$(command -v nvcc)}
    mkdir -p "$place/empty"
    script "$place/bin/nvcc" <<WRAPPER
#!/usr/bin/env bash
arguments=()
for argument in "\$@"; do
    case \$argument in
        *moe_*.cu | *mmvq_gguf.cu | *mmq_*.cu | *quantized.cu)
            argument=$place/empty/\${argument##*/} # whose name stays, for the output is named after it
            printf '' >"\$argument"
            ;;
    esac
    arguments+=("\$argument")
done
exec "$nvcc" "\${arguments[@]}"
WRAPPER
    export NVCC=$place/bin/nvcc
}

# The target is named so that build scripts don't get the flag: cudarc's refuses it beside candle's other choice.
settings() {
    mkdir -p "$place/lib"
    [ -n "${CUDA_HOME:-}" ] || command -v nvcc >/dev/null || fetch
    wrap
    export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
    export CARGO_BUILD_TARGET=$target
    rustflags=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_RUSTFLAGS
    export "$rustflags=--cfg feature=\"dynamic-loading\" -L native=$place/lib"
}

case ${1:-} in
    build)
        settings
        cd "$here"
        cargo build --release --locked --features cudnn "${@:2}"
        echo "built ${CARGO_TARGET_DIR:-target}/$target/release/distill" >&2
        ;;
    exports)
        settings
        for name in CUDA_HOME CUDARC_CUDA_VERSION NVCC CUDA_COMPUTE_CAP CARGO_BUILD_TARGET "$rustflags"; do
            [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
        done
        ;;
    check)
        stand_in=$(mktemp -d)
        trap 'rm -rf "$stand_in"' EXIT
        script "$stand_in/bin/nvcc" <<'STAND_IN'
#!/usr/bin/env bash
# Writes the files that it is asked for, with nothing in them.
case "$*" in *--version*) echo "Cuda compilation tools, release 13.0, V13.0.88" ;; esac
while [ $# -gt 0 ]; do
    case $1 in
        -o) shift && printf '' >"$1" ;;
        --output-directory) shift && folder=$1 ;;
        --output-directory=*) folder=${1#*=} ;;
        *.cu) sources+=("$1") ;;
    esac
    shift
done
for source in "${sources[@]}"; do
    [ -z "${folder:-}" ] || printf '' >"$folder/$(basename "$source" .cu).ptx"
done
STAND_IN
        export CUDA_HOME=$stand_in NVCC=$stand_in/bin/nvcc CUDARC_CUDA_VERSION=13000 CUDA_COMPUTE_CAP=80
        cd "$here"
        cargo check --locked --features cudnn "${@:2}"
        ;;
    *)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
