# The images of this repository; containers/README.md says how they come to a cluster.
#
#   docker build -t megatron-rl .                     CUDA, Python 3.12, the packages of containers/cuda.lock
#   docker build -t megatron-rl:cpu --target cpu .    CPU, Python 3.11, the packages of containers/cpu.lock
#
# Arguments, each as --build-arg NAME=VALUE:
#   CUDA_BASE      image with the CUDA toolkit; its version is the one torch was built with
#   CPU_BASE       image of a Debian or Ubuntu that has python3.11
#   CUDA_ARCHS     GPUs to compile for: 90 for H100 and H200, "90;100" for B200 as well
#   APEX           true: compile apex, half an hour; Megatron then adds up weight gradients in one kernel
#   APEX_COMMIT    the source apex is compiled from
#   APEX_ARCHS     as CUDA_ARCHS, written 9.0 or "9.0;10.0"
#   MAX_JOBS       compilers at once; each takes about 4 GB
ARG CUDA_BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04
ARG CPU_BASE=debian:bookworm-20250520-slim

FROM ${CPU_BASE} AS cpu
# Debian keeps one version of a package, so that the base image's date says enough.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates gcc git libc6-dev libnuma1 make python3.11 python3.11-dev python3.11-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/megatron-rl
COPY . .
RUN containers/setup.sh
ENV PATH=/opt/megatron-rl/.venv/bin:$PATH
CMD ["megatron-rl", "train", "prorl_v2", "--scale", "cpu", "--directory", "runs/demo"]

FROM ${CUDA_BASE} AS cuda
# The second line is what NCCL needs to use InfiniBand.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        build-essential git ninja-build python3.12 python3.12-dev python3.12-venv \
        ibverbs-providers libibverbs1 libnuma1 librdmacm1 \
    && rm -rf /var/lib/apt/lists/* \
    && python3.12 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    CUDNN_HOME=/opt/venv/lib/python3.12/site-packages/nvidia/cudnn
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# The lock decides alone: torch pins a cuBLAS that lacks a symbol of Transformer Engine, which pip would not go against.
COPY containers/cuda.lock /opt/cuda.lock
RUN grep -v '^transformer-engine-torch==' /opt/cuda.lock | pip install --no-deps -r /dev/stdin

# Transformer Engine's extension for this torch, against the cuDNN and NCCL that torch brings.
ARG CUDA_ARCHS=90
ARG MAX_JOBS=8
RUN CPATH="$CUDNN_HOME/include:${CUDNN_HOME%/cudnn}/nccl/include" \
    NVTE_FRAMEWORK=pytorch NVTE_CUDA_ARCHS="$CUDA_ARCHS" MAX_JOBS="$MAX_JOBS" \
    pip install --no-deps --no-build-isolation "$(grep '^transformer-engine-torch==' /opt/cuda.lock)"

# Optional: Megatron takes apex's fused_weight_gradient_mlp_cuda where it can be imported. PyPI's `apex` is another one.
ARG APEX=false
ARG APEX_COMMIT=10417aceddd7d5d05d7cbf7b0fc2daad1105f8b4
ARG APEX_ARCHS=9.0
RUN if [ "$APEX" = true ]; then \
        TORCH_CUDA_ARCH_LIST="$APEX_ARCHS" MAX_JOBS="$MAX_JOBS" NVCC_APPEND_FLAGS="--threads 2" \
        pip install --no-deps --no-build-isolation \
            --config-settings "--build-option=--cpp_ext --cuda_ext" \
            "git+https://github.com/NVIDIA/apex.git@$APEX_COMMIT"; \
    fi

WORKDIR /opt/megatron-rl
COPY . .
# doctor loads every verifier: a package that only one of them imports would else be missed days into a run.
RUN pip install --no-deps --no-build-isolation -e . \
    && python -m megatron_rl check prorl_v2 --scale h100x32 \
    && python -m megatron_rl doctor
CMD ["megatron-rl", "doctor"]
