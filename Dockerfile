# The agent's image: Debian with Node and libbpf, no compiler. `make rootfs` builds the same file system without a registry.

FROM debian:trixie-slim AS build
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \
	ca-certificates clang-19 gcc g++ git libbpf-dev libc6-dev libelf-dev libnode-dev linux-libc-dev llvm-19 make \
	musl-tools nodejs npm python3 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm_config_nodedir=/usr npm ci --no-audit --no-fund
COPY . .
RUN make build && scripts/image-files /out

FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends libbpf1 nodejs && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /
ENTRYPOINT ["/usr/bin/sluice"]
CMD ["agent", "--kubernetes"]
