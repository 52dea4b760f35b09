"""Connects a task to its systems: addresses from the environment, secrets from connections."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

if TYPE_CHECKING:
    from include.retraining.settings import Settings
    from include.retraining.spec import ModelSpec
    from include.retraining.telling.alerts import Channel

log = logging.getLogger(__name__)

SLACK_ATTEMPTS = 4
LONGEST_WAIT_SECONDS = 30  # that a task waits for Slack with a worker's slot in its hands
# Slack's answers about a thread or message that nobody can reply to
GONE = {
    "cannot_reply_to_message",
    "channel_not_found",
    "is_archived",
    "message_not_found",
    "restricted_action_thread_locked",
    "thread_not_found",
}


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

        if self._connection(self.slack_conn_id) is not None:
            return SlackChannel(self.slack_conn_id, spec.slack_channel)
        settings = Settings.from_env()
        folder = settings.home / "slack"
        if not settings.storage_url.startswith(f"file://{settings.home}/"):
            log.warning(
                "Nobody is told on %s: there is no Airflow connection %s. The message is kept in "
                "%s of %s alone. Do: add the connection, as the production page says",
                spec.slack_channel, self.slack_conn_id, folder, socket.gethostname(),
            )  # fmt: skip
        return FolderChannel(Storage(f"file://{folder}"), spec.slack_channel)

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
        conn = hook.conn_config
        known = {
            "AWS_DEFAULT_REGION": hook.region_name,
            "AWS_ENDPOINT_URL_S3": conn.get_service_endpoint_url(service_name="s3"),
        }
        # those of the machine's role end within hours; boto renews them where nobody exports them
        if conn.aws_access_key_id or conn.role_arn or conn.profile_name:
            credentials = hook.get_credentials()
            known |= {
                "AWS_ACCESS_KEY_ID": credentials.access_key,
                "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
                "AWS_SESSION_TOKEN": credentials.token,
            }
        os.environ.update({name: value for name, value in known.items() if value})


class SlackChannel:
    """A Slack channel through Airflow's connection; its errors, resets, short limits are retried.

    A limit of more than half a minute is `Busy`: whoever posts gives back the slot, and is retried.
    """

    def __init__(self, conn_id: str, channel: str) -> None:
        from airflow.providers.slack.hooks.slack import SlackHook
        from slack_sdk.http_retry.builtin_handlers import (
            ConnectionErrorRetryHandler,
            ServerErrorRetryHandler,
        )

        handlers = [
            ConnectionErrorRetryHandler(max_retry_count=2),
            ServerErrorRetryHandler(max_retry_count=3),
        ]
        self.client = SlackHook(slack_conn_id=conn_id, retry_handlers=handlers).client
        self.channel = channel

    @property
    def name(self) -> str:
        """Tell it from all other channels."""
        return f"slack {self.channel}"

    def post(self, text: str, *, thread: str | None) -> str:
        """Post a message, in a thread if one is given; give its ``channel:ts``."""
        answer = self._ask(
            self.client.chat_postMessage,
            channel=self.channel,
            text=text,
            thread_ts=thread.split(":")[1] if thread else None,
            unfurl_links=False,  # what an address in the data leads to is not shown
            unfurl_media=False,
        )
        return f"{answer['channel']}:{answer['ts']}"

    def update(self, message: str, text: str) -> None:
        """Replace the text of a message; one that cannot be edited any more stays as it is."""
        from slack_sdk.errors import SlackApiError

        channel, ts = message.split(":")
        try:
            self._ask(self.client.chat_update, channel=channel, ts=ts, text=text)
        except SlackApiError as error:  # a reply can be posted all the same
            log.warning("the thread's opening cannot be edited: %s", error.response.get("error"))

    def _ask(self, method: Callable[..., Any], **arguments: Any) -> Any:
        from slack_sdk.errors import SlackApiError

        from include.retraining.errors import Busy
        from include.retraining.telling.alerts import MessageGone

        for attempt in range(1, SLACK_ATTEMPTS + 1):
            try:
                return method(**arguments)
            except SlackApiError as error:
                answer = error.response
                if answer.get("error") in GONE:
                    raise MessageGone(str(answer["error"])) from error
                if answer.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
                seconds = _retry_after(answer.headers)
                if attempt == SLACK_ATTEMPTS or seconds > LONGEST_WAIT_SECONDS:
                    told = f"Slack takes nothing on {self.channel} for {seconds:.0f} seconds"
                    raise Busy(told, seconds=seconds) from error
                time.sleep(seconds)
        raise AssertionError("unreachable")


def _retry_after(headers: Mapping[str, str]) -> float:
    found = {name.lower(): value for name, value in headers.items()}.get("retry-after", "")
    return float(found) if found.isdecimal() else 1.0


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
