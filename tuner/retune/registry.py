"""The store of champions: MLflow's model registry, behind errors and addresses that people can read."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.tracking.mlflow_writer import CLASSIC_VIEW, STUDY_TAG, TRIAL_TAG, create_store
from tuner.tracking.store import absolute_uri, check_tracking_uri, default_tracking_uri, hidden, shown, sqlite_file
from tuner.tracking.writer_process import WRITER_ENVIRONMENT

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking import MlflowClient

QUIET = {**WRITER_ENVIRONMENT, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
MISSING = "RESOURCE_DOES_NOT_EXIST"
NO_ALIAS = "INVALID_PARAMETER_VALUE"
PREFIX = "servetune."
FOREIGN = str.maketrans({"/": "-", ":": "-"})
"""Characters that MLflow allows in no model's name."""


class StoreError(Exception):
    """MLflow could not be read or written; the message names the store, without credentials."""


class Store:
    """An MLflow tracking store and model registry at one address.

    Every method raises StoreError where the store does not answer. Importing MLflow takes seconds, so that is done
    here. Raises InputError, when made, for an address that cannot be a store.
    """

    def __init__(self, uri: str | None = None) -> None:
        asked = uri or default_tracking_uri()
        check_tracking_uri(asked)
        self.uri = absolute_uri(asked)
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self.file = sqlite_file(self.uri)
        with self.errors():
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                create_store(self.file)
            self.client = self._client()

    def _client(self) -> "MlflowClient":
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def shown(self) -> str:
        return str(self.file or shown(self.uri))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What MLflow and its drivers raise, as a StoreError."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError) as error:
            reason = hidden(" ".join(str(error).split())[:300], self.uri)
            raise StoreError(f"MLflow at {self.shown} cannot be used: {reason}") from None

    # Registered models

    def model(self, name: str) -> "RegisteredModel | None":
        with self.errors():
            return self._unless_missing(lambda: self.client.get_registered_model(name))

    def make_model(self, name: str, tags: Mapping[str, str]) -> None:
        """Makes a registered model where there is none of that name."""
        from mlflow.exceptions import MlflowException

        with self.errors():
            try:
                self.client.create_registered_model(name, tags=dict(tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise

    def aliased(self, name: str, alias: str) -> "ModelVersion | None":
        with self.errors():
            return self._unless_missing(lambda: self.client.get_model_version_by_alias(name, alias))

    def versions(self, name: str) -> "list[ModelVersion]":
        """Newest first."""
        with self.errors():
            quoted = name.replace("'", "''")
            found = self.client.search_model_versions(f"name='{quoted}'", max_results=1000)
        return sorted(found, key=lambda version: -int(version.version))

    def set_tag(self, name: str, key: str, value: str) -> None:
        with self.errors():
            self.client.set_registered_model_tag(name, key, value)

    def drop_tag(self, name: str, key: str) -> None:
        with self.errors():
            self.client.delete_registered_model_tag(name, key)

    def _unless_missing(self, ask: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return ask()
        except MlflowException as error:
            if error.error_code == MISSING or (error.error_code == NO_ALIAS and "not found" in str(error)):
                return None
            raise

    # Runs

    def experiment_id(self, name: str) -> str:
        """The MLflow experiment of that name, made on first use; artifacts beside a store that is a file."""
        with self.errors():
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            place = (self.file.parent / "mlruns" / name.replace("/", "-")).as_uri() if self.file else None
            return str(self.client.create_experiment(name, artifact_location=place, tags=CLASSIC_VIEW))

    def trial_run(self, experiment_id: str, study: str, number: int) -> "Run | None":
        """The run of one trial of a study."""
        with self.errors():
            parents = self.client.search_runs([experiment_id], f"tags.`{STUDY_TAG}` LIKE '%'", max_results=1000)
            parent = next((run for run in parents if run.data.tags[STUDY_TAG] == study), None)
            if parent is None:
                return None
            trial = f"tags.`{TRIAL_TAG}` = '{number}' and tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
            return next(iter(self.client.search_runs([experiment_id], trial, max_results=1)), None)

    def write_files(self, run_id: str, files: Mapping[str, str]) -> None:
        with self.errors():
            for path, text in files.items():
                self.client.log_text(run_id, text, path)

    def read_files(self, run_id: str, folder: str) -> dict[str, str]:
        """The files directly under a folder of a run's artifacts, by name."""
        with self.errors(), tempfile.TemporaryDirectory(prefix="servetune-") as here:
            root = Path(self.client.download_artifacts(run_id, folder, here))
            return {path.name: path.read_text(encoding="utf-8") for path in root.iterdir() if path.is_file()}


def model_name(experiment: str) -> str:
    """The registered model that holds the champions of an experiment."""
    return PREFIX + experiment.translate(FOREIGN)
