# The operator: pure Python.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS base
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

# Packages come by the hashes of docker/locks; as long as these stay the same, so do the layers that install them.
FROM base AS tools
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake g++ ninja-build python3-dev python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY docker/locks/build.txt /locks/
RUN python3 -m venv /opt/tools \
 && /opt/tools/bin/pip install --no-cache-dir --require-hashes --requirement /locks/build.txt \
 && python3 -m venv --without-pip /opt/penstock
WORKDIR /src

FROM tools AS dependencies
COPY docker/locks/operator.txt /locks/
RUN /opt/tools/bin/pip --python /opt/penstock/bin/python install --no-cache-dir \
      --require-hashes --requirement /locks/operator.txt \
 && find /opt/penstock -type d -name tests -prune -exec rm -rf {} +

# One wheel of pure Python serves all images.
FROM tools AS code
COPY pyproject.toml LICENSE README.md ./
COPY crds crds
COPY operator operator
COPY agent agent
COPY cli cli
COPY vpp-plugin vpp-plugin
RUN PENSTOCK_PURE=1 /opt/tools/bin/pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir /tmp/wheel . \
 && /opt/tools/bin/pip --python /opt/penstock/bin/python install --no-cache-dir --no-deps --no-warn-script-location \
      --prefix /opt/code /tmp/wheel/*.whl

FROM base
RUN groupadd --gid 65532 penstock \
 && useradd --uid 65532 --gid penstock --no-create-home --no-log-init --shell /usr/sbin/nologin penstock
COPY --from=dependencies /opt/penstock /opt/penstock
COPY --from=code /opt/code /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1
# By number, so that Kubernetes can tell that it is not root.
USER 65532:65532
ENTRYPOINT ["penstock"]
CMD ["operator"]
