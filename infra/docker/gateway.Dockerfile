# The gateway: HTTP in front of the queue. Neither engine code nor torch gets in, and a test boots it from the files
# copied here. Build it from the top of the repository:
#
#   docker build -f infra/docker/gateway.Dockerfile -t headrace-gateway .

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Editable, so this layer holds dependencies, the `headrace` command and a path to /app; the code comes in later layers.
RUN pip install --no-cache-dir -c constraints.txt -e ".[gateway,s3,otel,ledger]"

FROM python:3.11.13-slim-bookworm
RUN groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid headrace --no-create-home --home-dir /data --shell /usr/sbin/nologin headrace \
    && install --directory --owner=headrace --group=headrace /data
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEADRACE_PATHS__DATA_DIR=/data \
    HEADRACE_GATEWAY__HOST=0.0.0.0 \
    HEADRACE_GATEWAY__PORT=8080
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY headrace headrace
COPY gateway gateway
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Ready means that jobs can be accepted: the store takes writes and keeps them. http.client knows of no proxy.
HEALTHCHECK --interval=10s --timeout=8s --start-period=20s --retries=3 CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=7); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "gateway"]
