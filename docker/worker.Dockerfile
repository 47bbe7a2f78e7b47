# A worker. The torch wheel contains its CUDA libraries; the host provides the driver and the NVIDIA
# container toolkit. Without a GPU the same image runs on the CPU.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY db db
COPY worker worker
COPY scheduler scheduler
# the commit, which records tell: --build-arg COMMIT="$(git rev-parse --short=7 HEAD)"
ARG COMMIT=""
RUN printf %s "$COMMIT" > worker/commit.txt \
 && python -m venv /opt/genmill \
 && /opt/genmill/bin/pip install --no-cache-dir -c constraints.txt '.[worker]'

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 genmill \
 && install -d -o genmill -g genmill /data
COPY --from=build /opt/genmill /opt/genmill
ENV PATH=/opt/genmill/bin:$PATH GENMILL_HOME=/data GENMILL_LOG_FORMAT=json \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER genmill
WORKDIR /data
# SIGTERM drains: the worker finishes its micro-batch, saves a checkpoint and releases the shard.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 \
    CMD ["genmill", "doctor", "--check", "database", "--check", "broker", "--check", "store", "--check", "workers"]
ENTRYPOINT ["genmill"]
CMD ["worker"]
