# The harness and the converters: LoadGen, and the frameworks that make a model's files and check them.
# Build it with the project's folder as context: docker build --file docker/client.Dockerfile .
# The tag moves with Debian's updates; the digest is of the index of all architectures.
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
# PyTorch without CUDA, which only the server needs; PyPI's own build takes 5 GB more.
ARG EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /opt/mlperf
COPY requirements.txt requirements.lock harness/server/container/locked.py ./
# All but the server, the framework that only it uses, and what is for tests.
RUN sed -e '/^# tests and checks/,$d' -e '/^nvidia-pytriton==/d' -e '/^openvino==/d' requirements.txt > client.txt \
    && python locked.py requirements.lock client.txt > client.lock \
    && pip install --no-cache-dir --no-deps --require-hashes --only-binary=:all: \
        --extra-index-url="${EXTRA_INDEX_URL}" --requirement=client.lock \
    && useradd --create-home --uid 1000 bench \
    && install --directory --owner=bench results model_repository .state /weights
COPY harness harness
COPY converters converters
USER 1000
ENTRYPOINT ["python", "-m", "harness.server.container.client"]
CMD ["--help"]
