#!/bin/sh
# Compiles hotset.cu to hotset.fatbin for sm_80 and sm_90, with PTX for later ones, and records which sources it was made
# of. Needs nvcc 13.0 (a driver of that generation refuses PTX of 13.2 and later), which comes from PyPI:
#
#   python3 -m venv cuda && cuda/bin/pip install 'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' \
#       'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*'
#   hw/kernels/build.sh cuda/lib/python3*/site-packages/nvidia/cu13/bin/nvcc
set -eu
nvcc=$(command -v "${1:-nvcc}")
cd "$(dirname "$0")"
"$nvcc" -fatbin -std=c++17 --fmad=false --compress-mode=size \
    -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -gencode arch=compute_90,code=compute_90 \
    hotset.cu -o hotset.fatbin
sha256sum -- *.cu *.cuh hotset.fatbin >hotset.sha256
