# NVIDIA's own Triton, and those of our backends that it has no native one for.
# Build it with the project's folder as context: docker build --file docker/server.Dockerfile .
#
# 25.02 is the last release with the native TensorFlow backend; in later ones ours takes its place. NVIDIA's tag
# of a release does not move; who trusts no tag gives TRITON_TAG=25.02-py3@sha256:..., its digest as well.
ARG TRITON_TAG=25.02-py3
FROM nvcr.io/nvidia/tritonserver:${TRITON_TAG}
WORKDIR /opt/mlperf
COPY requirements.lock ./
COPY backends backends
COPY harness/__init__.py harness/
COPY harness/server/__init__.py harness/server/flags.py harness/server/hidden.py harness/server/
COPY harness/server/container harness/server/container
# Newer releases are Ubuntu 24.04, whose pip refuses to add to the system's Python without the variable.
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m harness.server.container.backends backends /opt/tritonserver/backends requirements.lock
# NVIDIA's entry point starts this as root; it becomes the user of harness/server/container/owner.py, runs
# tritonserver, and sees to it that a stopped container ends in time.
CMD ["python3", "-m", "harness.server.container.server", "serve", "--model-repository=/models", "--backend-directory=/opt/tritonserver/backends"]
