# The worker, for CPUs and for NVIDIA GPUs; the task role and the console run from the same image. Build it from the
# top of the repository:
#
#   docker build -f infra/docker/worker.Dockerfile --target cpu -t headrace-worker .
#   docker build -f infra/docker/worker.Dockerfile --target cuda -t headrace-worker-cuda .

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE ./

# torch by itself and without dependencies from PyTorch's index of CPU builds (give TORCH_INDEX for a mirror of it); the
# build from the default index would bring several gigabytes of CUDA with it. What torch needs comes with the rest.
FROM build AS build-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt)" \
    && pip install --no-cache-dir -c constraints.txt -e ".[worker,hf,s3,otel,console,ledger]"

FROM build AS build-cuda
RUN pip install --no-cache-dir -c constraints.txt -e ".[worker,gpu,hf,s3,otel,console,ledger]"

FROM python:3.11.13-slim-bookworm AS runtime
RUN groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid headrace --no-create-home --home-dir /data --shell /usr/sbin/nologin headrace \
    && install --directory --owner=headrace --group=headrace /data /models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEADRACE_PATHS__DATA_DIR=/data \
    HEADRACE_PATHS__MODELS_DIR=/models
WORKDIR /app
STOPSIGNAL SIGTERM
# Starting, ready and draining are all well; no beat, or one that has gone stale, is not.
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=3 CMD ["python", "-m", "workers.health"]
ENTRYPOINT ["python", "-m", "workers"]

FROM runtime AS cuda
# Triton compiles a small launcher for each kernel while it runs, and wants a C compiler for it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV TRITON_CACHE_DIR=/tmp/triton
COPY --from=build-cuda /opt/venv /opt/venv
COPY headrace headrace
COPY kernels kernels
COPY engine engine
COPY workers workers
USER 10001:10001

FROM runtime AS cpu
COPY --from=build-cpu /opt/venv /opt/venv
COPY headrace headrace
COPY kernels kernels
COPY engine engine
COPY workers workers
USER 10001:10001
