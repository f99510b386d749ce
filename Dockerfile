# The binary on a small glibc base.
#
#   docker build -t devpocket .
#   docker run -d --name devpocket -p 8000:8000 -v devpocket:/data devpocket
#   docker logs devpocket        # the administrator's password, shown once

FROM node:22-slim AS build
WORKDIR /src
# By name: a data folder or installed packages of the host have no business in here.
COPY package.json bun.lock bunfig.toml tsconfig.json ./
COPY migrations migrations
COPY src src
RUN npx -y bun@1.4.5 run build

FROM debian:12-slim
# bubblewrap, util-linux and procps are the local runtime's; a server that only speaks to clusters needs none.
RUN apt-get update \
 && apt-get install -y --no-install-recommends bubblewrap ca-certificates procps tini util-linux \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /data devpocket \
 && install -d -o devpocket -g devpocket -m 700 /data
COPY --from=build /src/devpocket /usr/local/bin/devpocket
USER devpocket
ENV HOST=0.0.0.0 DATA_DIR=/data LOG_FORMAT=json
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s CMD ["devpocket", "health"]
# As pid 1 tini reaps what the processes of environments leave behind.
ENTRYPOINT ["tini", "--", "devpocket"]
