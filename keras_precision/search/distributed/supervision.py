"""Recovery of KerasTuner's oracles and chief from killed workers, killed chiefs and failed trials.

KerasTuner writes its files in place, so that a kill can leave half a file. Its chief waits forever for a worker that is
gone (https://github.com/keras-team/keras-tuner/issues/915), and it hangs after too many failed trials, because the
exception leaves the oracle's lock acquired. The code rests on private attributes of KerasTuner 1.4.8:
https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/engine/oracle.py
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from functools import cmp_to_key, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from keras_precision.core.errors import SearchError
from keras_precision.core.system.files import write_atomic
from keras_precision.core.system.optional import require
from keras_precision.search.distributed.saved_oracle import read_saved
from keras_precision.search.evaluation.mode import is_finalist

__all__ = ["FAILURE", "check_completed", "harden", "heartbeat", "requeue_failed", "serve"]

FAILURE = "failure.txt"
"""The file with the reason of the failure, in the folder of a failed trial."""

_HEARTBEAT_S = 1.0
_POLL_S = 0.2


def harden(oracle: Any) -> Any:
    """Make this oracle write files atomically, end a search that fails too often, and end every trial once.

    Methods of the instance are replaced, not those of its class. The attribute ``failure`` is the reason why the search
    ended early, or None.
    """
    names = ("create_trial", "end_trial", "_check_consecutive_failures")
    original = {name: getattr(oracle, name) for name in names}
    oracle.failure = None
    oracle.trials = _Trials(oracle.trials)
    tuners: Any = require("keras_tuner", extra="search")

    # save and _save_trial open the file for writing; a kill in between leaves it empty, and reload then fails.
    # https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/engine/stateful.py
    def save() -> None:
        write_atomic(oracle._get_oracle_fname(), json.dumps(oracle.get_state()))

    def save_trial(trial: Any) -> None:
        folder = Path(oracle._get_trial_dir(trial.trial_id))
        write_atomic(folder / "trial.json", json.dumps(trial.get_state()))

    # The original raises RuntimeError within end_trial, whose decorator ``synchronized`` releases the lock only after a
    # normal return: all later calls of the chief would hang. The reason is stored, and create_trial stops the workers.
    def check_consecutive_failures() -> None:
        try:
            original["_check_consecutive_failures"]()
        except RuntimeError as error:
            oracle.failure = str(error) + _read_failure(oracle, oracle.end_order[-1])

    def create_trial(oracle: Any, tuner_id: str) -> Any:
        if oracle.failure is None:
            return original["create_trial"](tuner_id)
        oracle.tuner_ids.discard(tuner_id)
        trials = tuners.engine.trial
        return trials.Trial(hyperparameters=oracle.get_space(), trial_id="", status=trials.TrialStatus.STOPPED)

    # A worker whose lease has expired may return with a trial that waits in the retry queue, or that another has ended.
    def end_trial(oracle: Any, trial: Any) -> None:
        workers = [name for name, ongoing in oracle.ongoing_trials.items() if ongoing.trial_id == trial.trial_id]
        if trial.trial_id not in oracle.end_order:
            oracle._retry_queue = [trial_id for trial_id in oracle._retry_queue if trial_id != trial.trial_id]
            original["end_trial"](trial)
        for name in workers:
            oracle.ongoing_trials.pop(name, None)

    def reload() -> None:
        read_saved(oracle)
        _reconcile(oracle)

    oracle.save, oracle._save_trial, oracle.reload = save, save_trial, reload
    oracle.create_trial = partial(tuners.synchronized(create_trial), oracle)
    oracle.end_trial = partial(tuners.synchronized(end_trial), oracle)
    oracle._check_consecutive_failures = check_consecutive_failures
    return oracle


class _Trials(dict[str, Any]):
    """Trials by ID. Their number includes trials whose folders were removed, since the next ID is that number.

    https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/engine/oracle.py#L468
    """

    def __len__(self) -> int:
        return max([super().__len__() - 1, *(int(trial_id) for trial_id in self if trial_id.isdecimal())]) + 1


def requeue_failed(oracle: Any) -> bool:
    """Put failed trials that block a search back into the retry queue; return whether there are any.

    These are finalists, the consecutive failures that ended an earlier search, the first trial, with which others are
    compared, and all trials if none has completed.
    """
    failed = {trial_id for trial_id in oracle.end_order if oracle.trials[trial_id].status == "FAILED"}
    runs = (list(run) for is_failed, run in groupby(oracle.end_order, failed.__contains__) if is_failed)
    retries = {trial_id for run in runs if len(run) >= oracle.max_consecutive_failed_trials for trial_id in run}
    retries |= {trial_id for trial_id in failed if is_finalist(oracle.trials[trial_id].hyperparameters.values)}
    retries |= failed if len(failed) == len(oracle.end_order) else failed.intersection(oracle.start_order[:1])
    oracle.failure = None
    if not retries:
        return False
    oracle.end_order = [trial_id for trial_id in oracle.end_order if trial_id not in retries]
    # create_trial takes the last of the private queue first, and _run_times limits the retries of a trial.
    oracle._retry_queue = [*sorted(retries, reverse=True), *oracle._retry_queue]
    oracle._run_times.update(dict.fromkeys(retries, 0))
    oracle.save()  # first: after a kill here the trials still have the status FAILED, and the next search requeues them
    for trial_id in sorted(retries):
        trial = oracle.trials[trial_id]
        trial.status, trial.message = "RUNNING", None
        oracle._save_trial(trial)
        (Path(oracle._get_trial_dir(trial_id)) / FAILURE).unlink(missing_ok=True)
    return True


def check_completed(oracle: Any) -> None:
    """Raise ``SearchError`` with the last reason if all trials of a search have failed, or all its finalists."""
    trials = list(oracle.trials.values())
    finalists = [trial for trial in trials if is_finalist(trial.hyperparameters.values)]
    for group, expected, remedy in (
        (trials, "trials that end well", " Remove the cause, and search again."),
        (finalists, "finalists whose training ends well",
         " Earlier trials are saved: see tuner.best_plan. Another search trains the finalists again."),
    ):  # fmt: skip
        failed = [trial for trial in group if trial.status == "FAILED"]
        if failed and len(failed) == len(group):
            message = (failed[-1].message or _read_failure(oracle, failed[-1].trial_id)).strip() or "no reason"
            reason = message.splitlines()[-1].removeprefix("keras_tuner.src.errors.FailedTrialError: ")
            raise SearchError(
                f"Expected {expected}. Received: {len(failed)} that failed, the last for: {reason}.{remedy}"
            )


def _read_failure(oracle: Any, trial_id: str) -> str:
    """Return the reason of a failure from the worker's file: the protobuf message of KerasTuner's service omits it."""
    path = Path(oracle._get_trial_dir(trial_id)) / FAILURE
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _reconcile(oracle: Any) -> None:
    """Update the state of a reloaded oracle from the files of its trials, which are written before its own file.

    After a kill between the two files, KerasTuner would skip the trial, or run it twice.
    """
    # Skipped trials of distributed searches: https://github.com/keras-team/keras-tuner/issues/596
    for trial_id, trial in sorted(oracle.trials.items()):
        if trial_id not in oracle.start_order:
            oracle.start_order.append(trial_id)
            oracle._record_values(trial)
        if trial_id not in oracle.end_order and trial.status in ("COMPLETED", "FAILED"):
            oracle.end_order.append(trial_id)
    started = dict.fromkeys([*oracle._retry_queue, *oracle.start_order])
    oracle._retry_queue = [trial_id for trial_id in started if trial_id not in oracle.end_order]
    if isinstance(oracle, require("keras_tuner", extra="search").oracles.GridSearchOracle):
        _restore_grid(oracle)


def _restore_grid(oracle: Any) -> None:
    """Rebuild the order of a grid search from its trials."""

    # KerasTuner saves neither _ordered_ids nor _populate_next, and a resumed search ends with KeyError.
    # https://github.com/keras-team/keras-tuner/issues/1055
    # https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/tuners/gridsearch.py
    def compare(one: Any, other: Any) -> int:
        return int(oracle._compare(one.hyperparameters.values, other.hyperparameters.values))

    oracle._ordered_ids = type(oracle._ordered_ids)()
    for trial in sorted(oracle.trials.values(), key=cmp_to_key(compare)):
        oracle._ordered_ids.insert(trial.trial_id)
    oracle._populate_next = list(oracle.start_order)


@contextmanager
def heartbeat(folder: Path, tuner_id: str) -> Iterator[None]:
    """Touch a file in the folder of the search, which chief and workers share, as long as this worker is alive."""
    ended, path = threading.Event(), folder / f"alive_{tuner_id}"
    folder.mkdir(parents=True, exist_ok=True)

    def beat() -> None:
        while True:
            with suppress(OSError):  # a network folder may be unavailable for a moment; the next beat may succeed
                path.write_text(str(time.time()), encoding="ascii")
            if ended.wait(_HEARTBEAT_S):
                return

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def serve(
    oracle: Any,
    address: str,
    folder: Path,
    *,
    lease_s: float = 60.0,
    patience_s: float = 3600.0,
    on_trial_end: Callable[[], None] = lambda: None,
) -> None:
    """Serve a hardened oracle at ``host:port`` to the workers of a search until it ends.

    A worker has a lease on its trial while its heartbeat continues in the folder of the search. After ``lease_s``
    seconds of silence, the trial goes to the next worker, and the chief no longer waits for the silent one. After
    ``patience_s`` seconds without any worker, the chief ends with ``SearchError``.
    """
    grpc: Any = require("grpc", extra="search")
    # KerasTuner's own start_server waits until every known worker has come back. Its service is used without it.
    # https://github.com/keras-team/keras-tuner/issues/915
    # https://github.com/keras-team/keras-tuner/blob/v1.4.8/keras_tuner/src/distribute/oracle_chief.py
    chief: Any = require("keras_tuner.src.distribute.oracle_chief", extra="search")
    protos: Any = require("keras_tuner.src.protos", extra="search")
    synchronized: Any = require("keras_tuner", extra="search").synchronized
    servicer = chief.OracleServicer(oracle)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    leases = _Leases(oracle, folder, lease_s, synchronized)
    server.start()
    try:
        leases.watch(servicer, patience_s, on_trial_end)
        on_trial_end()
    finally:
        server.stop(grace=1.0).wait()
    if oracle.failure is not None:
        raise SearchError(f"Expected trials that run. Received: {oracle.failure.strip()}")


class _Leases:
    """The leases of workers on their trials, which expire when their heartbeats stop."""

    def __init__(self, oracle: Any, folder: Path, lease_s: float, synchronized: Any) -> None:
        self._oracle, self._folder, self._lease_s = oracle, folder, lease_s
        self._heartbeats: dict[
            str, tuple[float, float]
        ] = {}  # modification time of the file, and our time of its change
        self._expire: Any = synchronized(_expire)

    def watch(self, servicer: Any, patience_s: float, on_trial_end: Callable[[], None]) -> None:
        """Return when the search has ended, and no worker is left that does not know it."""
        last_worker_at, ended = time.monotonic(), 0
        while True:
            time.sleep(_POLL_S)  # the server has a thread of its own
            if len(self._oracle.end_order) != ended:
                ended = len(self._oracle.end_order)
                on_trial_end()
            for tuner_id in list(self._oracle.tuner_ids):
                if self._silent_s(tuner_id) > self._lease_s:
                    self._expire(self._oracle, tuner_id)
            if self._oracle.tuner_ids:
                last_worker_at = time.monotonic()
            elif servicer.stop_triggered or self._oracle.failure is not None:
                return
            elif time.monotonic() - last_worker_at > patience_s:
                raise SearchError(
                    f"Expected workers. Received: none for {patience_s:.0f} s. Start them with the same KERASTUNER_ORACLE_IP and "
                    "KERASTUNER_ORACLE_PORT, and the chief again: the search goes on where it was."
                )

    def _silent_s(self, tuner_id: str) -> float:
        """Return the seconds since the last heartbeat by this machine's clock, since those of other machines may differ."""
        try:
            modified = (self._folder / f"alive_{tuner_id}").stat().st_mtime
        except FileNotFoundError:
            modified = 0.0
        now = time.monotonic()
        last = self._heartbeats.get(tuner_id)
        if last is None or last[0] != modified:
            self._heartbeats[tuner_id] = last = (modified, now)
        return now - last[1]


def _expire(oracle: Any, tuner_id: str) -> None:
    """Give the trial of a lost worker to the next worker."""
    # KerasTuner has no leases: it loses the trial, and other workers stay idle at the end of the search.
    # https://github.com/keras-team/keras-tuner/issues/915
    # https://github.com/keras-team/keras-tuner/issues/636
    trial = oracle.ongoing_trials.pop(tuner_id, None)
    if trial is not None and trial.trial_id not in oracle.end_order:
        oracle._retry_queue.append(trial.trial_id)  # private, but the only queue that create_trial reads
    oracle.tuner_ids.discard(tuner_id)
    oracle.save()
