# The bench on NVIDIA GPUs. The driver and its libraries come from the host, through NVIDIA's container toolkit; CUDA comes
# with Paddle's and DALI's packages. From the checkout's root:
#   docker build -f containers/gpu.Dockerfile --build-arg WHEEL=cu126 -t pplcnet-bench:gpu .
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home bench
WORKDIR /bench
COPY --chown=bench:bench . .
USER bench

# There is no driver while the image is built, so that the build of Paddle is chosen here (docs/devices.md).
ARG WHEEL=cu126
RUN make DEVICE=gpu WHEEL=${WHEEL} install

ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["/bench/.venv/bin/python", "run_bench.py"]
CMD ["doctor"]
