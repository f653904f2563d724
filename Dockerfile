# volseg on a CPU, with the bundled models: docs/docker.md says how to build and use it.
FROM python:3.11-slim-bookworm

# Further index of packages, for torch without CUDA; empty: pip's own alone.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp

WORKDIR /opt/volseg
# The dependencies are a layer of their own, made anew only where their versions change.
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > dependencies.txt \
    && pip install --constraint constraints.txt --requirement dependencies.txt
COPY README.md LICENSE ./
COPY volseg volseg
RUN pip install --no-deps .

# No name and no home of its own, so that any --user may take its place.
USER 10001:10001
WORKDIR /data
ENTRYPOINT ["volseg"]
CMD ["--help"]
