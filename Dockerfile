# One image for every part: the components of Airflow, and the MLflow server.
#
# From python:3.12-slim, not apache/airflow: requirements.txt pins every package, Airflow among them, and is what
# the tests run on. Laid over Airflow's own image it would replace most of what is there, at twice the size.
# The steps are scripts/ because the tests run them too.
FROM python:3.12-slim

# uid 50000 in group 0, as in Airflow's own image; these folders are where volumes go
RUN useradd --uid 50000 --gid 0 --create-home airflow \
    && install --directory --owner airflow --group 0 --mode 0775 \
        /opt/airflow /opt/airflow/config /opt/airflow/logs /var/lib/retraining

WORKDIR /opt/retraining
COPY requirements.txt ./
COPY scripts/install.sh scripts/
RUN pip install --no-cache-dir --root-user-action ignore uv \
    && UV_NO_CACHE=1 scripts/install.sh /opt/venv

# the bundle: what Airflow serves, and nothing else
COPY .airflowignore ./
COPY dags dags
COPY plugins plugins
COPY include include
COPY feature_repo feature_repo
COPY great_expectations great_expectations
COPY scripts scripts
COPY include/demo/airflow_local_settings.py /opt/airflow/config/
RUN /opt/venv/bin/python -m compileall -q dags plugins include feature_repo /opt/airflow/config

# the commit that training runs are tagged with, where there is no git: docker compose build --build-arg COMMIT=...
ARG COMMIT=
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AIRFLOW_HOME=/opt/airflow \
    RETRAINING_COMMIT=$COMMIT \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/retraining/plugins \
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST='[{"name": "retraining", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": "/opt/retraining"}}]' \
    OMP_WAIT_POLICY=PASSIVE \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=true

USER 50000:0
EXPOSE 8080 5000
ENTRYPOINT ["/opt/retraining/scripts/entrypoint.sh"]
CMD ["api-server"]
