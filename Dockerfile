# Two images of one file: `tracking` is MLflow's server, without torch; `packlm` is everything else. `make up` builds both.
#
# Packages come from where pip finds them unless PIP_INDEX_URL or PIP_EXTRA_INDEX_URL says otherwise. Both stay readable in the image's
# history: no password belongs in them.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    MLFLOW_DISABLE_TELEMETRY=true
RUN useradd --uid 1000 --create-home packlm
WORKDIR /packlm
# What the packages depend on comes before the source, which changes more often.
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
# A new volume takes over the owner of the folder that it covers.
RUN install -d -o packlm -g packlm data runs cache
COPY . .
# The root file system is read-only where this runs: what libraries write goes to /tmp, or to the cache that outlives a container.
ENV PYTHONPATH=/packlm HF_HOME=/packlm/cache HOME=/tmp
USER packlm
