# The embedded data plane: forwards packets and keeps the node's routes, rules and nft table.
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
COPY docker/locks/dataplane.txt /locks/
RUN /opt/tools/bin/pip --python /opt/penstock/bin/python install --no-cache-dir \
      --require-hashes --requirement /locks/dataplane.txt \
 && find /opt/penstock -type d -name tests -prune -exec rm -rf {} +

# The extension is compiled from C and C++ alone: an edit of Python code does not compile anything.
FROM tools AS extension
COPY vpp-plugin/CMakeLists.txt vpp-plugin/
COPY vpp-plugin/core vpp-plugin/core
COPY vpp-plugin/embedded/CMakeLists.txt vpp-plugin/embedded/
COPY vpp-plugin/embedded/io vpp-plugin/embedded/io
COPY vpp-plugin/python vpp-plugin/python
RUN cmake -S vpp-plugin -B /tmp/build -G Ninja -DSKBUILD=2 -DPENSTOCK_SIM=OFF -DCMAKE_BUILD_TYPE=Release \
      -DPython_EXECUTABLE=/opt/tools/bin/python -DCMAKE_INSTALL_PREFIX=/opt/extension \
      -Dnanobind_DIR="$(/opt/tools/bin/python -m nanobind --cmake_dir)" \
 && cmake --build /tmp/build \
 && cmake --install /tmp/build --strip

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
RUN apt-get update \
 && apt-get install --yes --no-install-recommends nftables \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=dependencies /opt/penstock /opt/penstock
COPY --from=extension /opt/extension /opt/penstock/lib/python3.13/site-packages
COPY --from=code /opt/code /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1
# uid 0 opens the TUN device; the pod drops every capability but NET_ADMIN (and NET_RAW for announcements).
USER 0:0
ENTRYPOINT ["penstock"]
CMD ["dataplane"]
