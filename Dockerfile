# The image of trainyard: controller, server and the programs that the init container brings into a task's pod.
#
# The programs are built outside (`cargo xtask image` writes dist/), because they need two links that no one
# base image offers: a static one, and one for glibc 2.17 and newer.

# Any glibc or musl image with a shell does; tests put their own here, which needs no package mirror.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# The checkout of a task runs in this image: git with LFS, ssh for its remotes, certificates for https ones.
# A base that has all of them is left as it is, so that such a build needs no network.
RUN if ! command -v git-lfs >/dev/null || ! command -v ssh >/dev/null || [ ! -s /etc/ssl/certs/ca-certificates.crt ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends git git-lfs openssh-client ca-certificates \
        && rm -rf /var/lib/apt/lists/*; \
    fi

# trainyard        static: runs here and in task images without any C library
# trainyard-glibc  for task images with glibc: can load the GPU driver's library, which a static program cannot
# uv               static: makes the environment of a task
COPY dist/trainyard dist/trainyard-glibc dist/uv /usr/local/bin/

# ssh refuses to work for a number that no account has, and a runtime takes the group from the account.
RUN echo 'trainyard:x:65532:' >> /etc/group \
    && echo 'trainyard:x:65532:65532::/:/usr/sbin/nologin' >> /etc/passwd

# Nothing in this image needs root; the number is given, since a cluster cannot check a name (runAsNonRoot).
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/trainyard"]
