# The scheduler and the command line, without torch: a few hundred megabytes.
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
 && /opt/genmill/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 genmill \
 && install -d -o genmill -g genmill /data
COPY --from=build /opt/genmill /opt/genmill
ENV PATH=/opt/genmill/bin:$PATH GENMILL_HOME=/data GENMILL_LOG_FORMAT=json
USER genmill
WORKDIR /data
STOPSIGNAL SIGTERM
# Healthy while its rounds go on and it reaches the database and the broker, with or without workers.
HEALTHCHECK --interval=30s --timeout=15s --start-period=20s --retries=3 \
    CMD ["genmill", "doctor", "--check", "scheduler", "--check", "database", "--check", "broker"]
ENTRYPOINT ["genmill"]
CMD ["scheduler"]
