# The bench on CPUs. From the checkout's root: docker build -f containers/cpu.Dockerfile -t pplcnet-bench .
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home bench
WORKDIR /bench
COPY --chown=bench:bench . .
USER bench

RUN make DEVICE=cpu install

# Results belong to a volume: docker run -v "$PWD/results:/bench/results" ...
ENTRYPOINT ["/bench/.venv/bin/python", "run_bench.py"]
CMD ["--throughput-only"]
