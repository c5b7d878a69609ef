# A data plane of type vpp: VPP from its distributor's packages, our plugin, and what prepares the node and steers VPP.
ARG BASE=debian:bookworm-slim
# An apt repository with the packages vpp, vpp-dev, vpp-plugin-core and vpp-plugin-dpdk, and the key that signs it.
ARG VPP_REPOSITORY=https://packagecloud.io/fdio/release/debian/
ARG VPP_SUITE=bookworm
ARG VPP_KEY=https://packagecloud.io/fdio/release/gpgkey
# SHA-256 of the key, from a source that you trust: who could replace the key could replace the packages.
ARG VPP_KEY_SHA256
# Empty: the newest release. The plugin is compiled against the same one.
ARG VPP_VERSION=

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
COPY docker/locks/vpp.txt /locks/
RUN /opt/tools/bin/pip --python /opt/penstock/bin/python install --no-cache-dir \
      --require-hashes --requirement /locks/vpp.txt \
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

FROM base AS vpp-repository
ARG VPP_REPOSITORY
ARG VPP_SUITE
ARG VPP_KEY
ARG VPP_KEY_SHA256
ADD ${VPP_KEY} /etc/apt/keyrings/vpp.asc
RUN if ! echo "${VPP_KEY_SHA256}  /etc/apt/keyrings/vpp.asc" | sha256sum --check --status; then \
      echo "VPP_KEY_SHA256: the key has the SHA-256 $(sha256sum < /etc/apt/keyrings/vpp.asc | cut -d ' ' -f 1), not" \
        "'${VPP_KEY_SHA256}'; compare it with what its owner says and give it by --build-arg" >&2; exit 1; \
    fi
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && chmod 0644 /etc/apt/keyrings/vpp.asc \
 && echo "deb [signed-by=/etc/apt/keyrings/vpp.asc] ${VPP_REPOSITORY} ${VPP_SUITE} main" \
      > /etc/apt/sources.list.d/vpp.list

FROM vpp-repository AS plugin
ARG VPP_VERSION
RUN apt-get update \
 && apt-get install --yes --no-install-recommends clang cmake gcc ninja-build python3-ply \
      "vpp${VPP_VERSION:+=${VPP_VERSION}}" "vpp-dev${VPP_VERSION:+=${VPP_VERSION}}" \
      "libvppinfra${VPP_VERSION:+=${VPP_VERSION}}" "libvppinfra-dev${VPP_VERSION:+=${VPP_VERSION}}" \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY vpp-plugin/CMakeLists.txt vpp-plugin/
COPY vpp-plugin/core vpp-plugin/core
COPY vpp-plugin/embedded/CMakeLists.txt vpp-plugin/embedded/
COPY vpp-plugin/embedded/io vpp-plugin/embedded/io
COPY vpp-plugin/vpp vpp-plugin/vpp
RUN cmake -S vpp-plugin -B /tmp/build -G Ninja -DPENSTOCK_VPP=ON -DPENSTOCK_SIM=OFF -DCMAKE_BUILD_TYPE=Release \
 && cmake --build /tmp/build \
 && mkdir -p /opt/plugin/vpp_plugins /opt/plugin/xdp \
 && find /tmp/build -name lb_rl_plugin.so -exec cp {} /opt/plugin/vpp_plugins/ \; \
 && cp /tmp/build/lib/xdp/to_vpp.bpf.o /opt/plugin/xdp/

FROM vpp-repository
ARG VPP_VERSION
RUN apt-get update \
 && apt-get install --yes --no-install-recommends nftables \
      "vpp${VPP_VERSION:+=${VPP_VERSION}}" "libvppinfra${VPP_VERSION:+=${VPP_VERSION}}" \
      "vpp-plugin-core${VPP_VERSION:+=${VPP_VERSION}}" "vpp-plugin-dpdk${VPP_VERSION:+=${VPP_VERSION}}" \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --from=dependencies /opt/penstock /opt/penstock
COPY --from=extension /opt/extension /opt/penstock/lib/python3.11/site-packages
COPY --from=code /opt/code /opt/penstock
COPY --from=plugin /opt/plugin /opt/penstock/lib
ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1
# uid 0 opens packet sockets and the node's network; each container of the pod drops all capabilities but its own.
USER 0:0
ENTRYPOINT ["penstock"]
CMD ["vpp", "start"]
