"""Connects a task to its systems: addresses from the environment, secrets from connections."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    from include.retraining.settings import Settings
    from include.retraining.spec import ModelSpec
    from include.retraining.telling.alerts import Channel


class RetrainingHook(BaseHook):
    """Gives the settings of a run, and the channel its alerts go to.

    :param aws_conn_id: credentials and endpoint for storage on ``s3://``; without such a connection
        boto's own chain of credentials is used.
    :param mlflow_conn_id: host, login and password of the MLflow server; without it the address of
        the environment is used.
    :param slack_conn_id: where alerts go; without it they are kept in a folder.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str = "aws_default",
        mlflow_conn_id: str = "mlflow_default",
        slack_conn_id: str = "slack_alerts",
    ) -> None:
        super().__init__()
        self.aws_conn_id = aws_conn_id
        self.mlflow_conn_id = mlflow_conn_id
        self.slack_conn_id = slack_conn_id

    def settings(self) -> Settings:
        """Give the settings with everything the connections know."""
        from include.retraining.settings import Settings

        settings = Settings.from_env()
        overrides: dict[str, Any] = {}
        if settings.storage_url.startswith("s3://"):
            self._export_aws()
        mlflow = self._connection(self.mlflow_conn_id)
        if mlflow is not None and mlflow.host:
            overrides["mlflow_tracking_uri"] = _mlflow_uri(mlflow)
        return Settings.from_env(**overrides) if overrides else settings

    def channel(self, spec: ModelSpec) -> Channel:
        """Give the channel for a model's alerts: Slack, or a folder if there is no connection."""
        from include.retraining.settings import Settings
        from include.retraining.storage import Storage
        from include.retraining.telling.alerts import FolderChannel

        if self._connection(self.slack_conn_id) is None:
            folder = Storage(f"file://{Settings.from_env().home / 'slack'}")
            return FolderChannel(folder, spec.slack_channel)
        return SlackChannel(self.slack_conn_id, spec.slack_channel)

    def _connection(self, conn_id: str) -> Any:
        try:
            return self.get_connection(conn_id)
        except AirflowNotFoundException:
            return None

    def _export_aws(self) -> None:
        """Hand the connection to s3fs, pyarrow, Feast and MLflow, which read these variables."""
        if self._connection(self.aws_conn_id) is None:
            return
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        hook = S3Hook(aws_conn_id=self.aws_conn_id)
        credentials = hook.get_credentials()
        known = {
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_SESSION_TOKEN": credentials.token,
            "AWS_DEFAULT_REGION": hook.region_name,
            "AWS_ENDPOINT_URL_S3": hook.conn_config.get_service_endpoint_url(service_name="s3"),
        }
        os.environ.update({name: value for name, value in known.items() if value})


class SlackChannel:
    """A Slack channel through Airflow's connection; its limits, errors and resets are retried."""

    def __init__(self, conn_id: str, channel: str) -> None:
        from airflow.providers.slack.hooks.slack import SlackHook
        from slack_sdk.http_retry.builtin_handlers import (
            ConnectionErrorRetryHandler,
            RateLimitErrorRetryHandler,
            ServerErrorRetryHandler,
        )

        handlers = [
            ConnectionErrorRetryHandler(max_retry_count=2),
            RateLimitErrorRetryHandler(max_retry_count=3),
            ServerErrorRetryHandler(max_retry_count=3),
        ]
        self.client = SlackHook(slack_conn_id=conn_id, retry_handlers=handlers).client
        self.channel = channel

    def post(self, text: str, *, thread: str | None) -> str:
        """Post a message, in a thread if one is given; give its ``channel:ts``."""
        answer = self.client.chat_postMessage(
            channel=self.channel, text=text, thread_ts=thread.split(":")[1] if thread else None
        )
        return f"{answer['channel']}:{answer['ts']}"

    def update(self, message: str, text: str) -> None:
        """Replace the text of a message."""
        channel, ts = message.split(":")
        self.client.chat_update(channel=channel, ts=ts, text=text)


def _mlflow_uri(connection: Any) -> str:
    from urllib.parse import quote

    login = ""
    if connection.login:
        login = f"{quote(connection.login, safe='')}:{quote(connection.password or '', safe='')}@"
    scheme = connection.schema or "http"
    port = f":{connection.port}" if connection.port else ""
    host = str(connection.host)
    if "://" in host:
        scheme, host = host.split("://", 1)
    return f"{scheme}://{login}{host}{port}"
