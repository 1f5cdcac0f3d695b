# Two images: `tracking` is MLflow's server, without torch; `packlm` is everything else. `make up` builds both.
#
# PIP_INDEX_URL and PIP_EXTRA_INDEX_URL select other package indexes. Both are visible in the image's history: put no password in them.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    MLFLOW_DISABLE_TELEMETRY=true
RUN useradd --uid 1000 --create-home packlm
WORKDIR /packlm
# Dependencies are installed before the source is copied, which changes more often.
COPY pyproject.toml constraints.txt ./


FROM base AS tracking
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*[line for line in project['dependencies'] if line.startswith('mlflow')], *project['optional-dependencies']['postgres'], sep='\n')" \
    > /tmp/requirements.txt \
    && pip install -c constraints.txt -r /tmp/requirements.txt \
    && install -d -o packlm -g packlm /artifacts
USER packlm


FROM base AS packlm
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > /tmp/requirements.txt \
    && pip install -c constraints.txt -r /tmp/requirements.txt
# A new volume gets the owner of the folder that it is mounted on.
RUN install -d -o packlm -g packlm data runs cache
COPY . .
# The root file system is read-only at run time: libraries write to /tmp, or to the cache volume.
ENV PYTHONPATH=/packlm HF_HOME=/packlm/cache HOME=/tmp
USER packlm
