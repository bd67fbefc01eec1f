"""What KerasTuner's oracles and its chief lack to survive a killed worker, or a killed chief.

Its files are written in place, so that a kill can leave half of one; its chief waits for ever for a worker that is
gone, and hangs once too many trials have failed, since the error leaves its lock taken.
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
from keras_precision.core.system.files import write_whole
from keras_precision.core.system.optional import require
from keras_precision.search.evaluation.mode import is_finalist

__all__ = ["FAILURE", "check_ended_well", "hardened", "heartbeat", "put_back", "serve"]

FAILURE = "failure.txt"
"""In the folder of a trial that failed: why."""

_BEAT_S = 1.0
_LOOK_S = 0.2


def hardened(oracle: Any) -> Any:
    """Make an oracle write its files whole, end a search that fails too often, and end each trial once.

    Args:
        oracle: An oracle of KerasTuner; the instance itself is changed, not its class.

    Returns:
        The same oracle, with ``failure``: why the search ended early, or None.
    """
    kept = {
        name: getattr(oracle, name) for name in ("create_trial", "end_trial", "reload", "_check_consecutive_failures")
    }
    oracle.failure = None
    tuners: Any = require("keras_tuner", extra="search")

    def save() -> None:
        write_whole(oracle._get_oracle_fname(), json.dumps(oracle.get_state()))

    def save_trial(trial: Any) -> None:
        folder = Path(oracle._get_trial_dir(trial.trial_id))
        write_whole(folder / "trial.json", json.dumps(trial.get_state()))

    def check_consecutive_failures() -> None:
        try:
            kept["_check_consecutive_failures"]()
        except RuntimeError as error:
            oracle.failure = str(error) + _written(oracle, oracle.end_order[-1])

    def create_trial(oracle: Any, tuner_id: str) -> Any:
        if oracle.failure is None:
            return kept["create_trial"](tuner_id)
        oracle.tuner_ids.discard(tuner_id)
        trials = tuners.engine.trial
        return trials.Trial(hyperparameters=oracle.get_space(), trial_id="", status=trials.TrialStatus.STOPPED)

    def end_trial(oracle: Any, trial: Any) -> None:
        # A worker that was taken for dead may come back with a trial that waits for another, or that another has run.
        holders = [name for name, each in oracle.ongoing_trials.items() if each.trial_id == trial.trial_id]
        if trial.trial_id not in oracle.end_order:
            oracle._retry_queue = [each for each in oracle._retry_queue if each != trial.trial_id]
            kept["end_trial"](trial)
        for name in holders:
            oracle.ongoing_trials.pop(name, None)

    def reload() -> None:
        kept["reload"]()
        _settle(oracle)

    oracle.save, oracle._save_trial, oracle.reload = save, save_trial, reload
    oracle.create_trial = partial(tuners.synchronized(create_trial), oracle)
    oracle.end_trial = partial(tuners.synchronized(end_trial), oracle)
    oracle._check_consecutive_failures = check_consecutive_failures
    return oracle


def put_back(oracle: Any) -> bool:
    """Let a new search try again what failed and what the others hang on.

    These are finalists; the failures in a row that ended a search before; the first trial, which others are held
    against; and all, where nothing ended well.

    Args:
        oracle: A hardened oracle.

    Returns:
        Whether there are any.
    """
    failed = {each for each in oracle.end_order if oracle.trials[each].status == "FAILED"}
    rows = (list(row) for ill, row in groupby(oracle.end_order, failed.__contains__) if ill)
    again = {each for row in rows if len(row) >= oracle.max_consecutive_failed_trials for each in row}
    again |= {each for each in failed if is_finalist(oracle.trials[each].hyperparameters.values)}
    again |= failed if len(failed) == len(oracle.end_order) else failed.intersection(oracle.start_order[:1])
    oracle.failure = None
    if not again:
        return False
    oracle.end_order = [each for each in oracle.end_order if each not in again]
    oracle._retry_queue = [*sorted(again, reverse=True), *oracle._retry_queue]  # whose last is the next
    oracle._run_times.update(dict.fromkeys(again, 0))
    oracle.save()  # first: a kill now leaves trials that failed, which are put back another time
    for trial_id in sorted(again):
        trial = oracle.trials[trial_id]
        trial.status, trial.message = "RUNNING", None
        oracle._save_trial(trial)
        (Path(oracle._get_trial_dir(trial_id)) / FAILURE).unlink(missing_ok=True)
    return True


def check_ended_well(oracle: Any) -> None:
    """Raise where all trials of a search have failed, or all that judged its finalists.

    Args:
        oracle: Of KerasTuner.

    Raises:
        SearchError: So it is; the message has the last reason.
    """
    every = list(oracle.trials.values())
    for kind, kept, told in (
        (every, "trials that end well", ""),
        ([each for each in every if is_finalist(each.hyperparameters.values)], "finalists whose training ends well",
         " What was found before is kept: see tuner.best_plan. Another search tries them again."),
    ):  # fmt: skip
        failed = [each for each in kind if each.status == "FAILED"]
        if failed and len(failed) == len(kind):
            message = (failed[-1].message or _written(oracle, failed[-1].trial_id)).strip() or "no reason"
            reason = message.splitlines()[-1].removeprefix("keras_tuner.src.errors.FailedTrialError: ")
            raise SearchError(f"Expected {kept}. Received: {len(failed)} that failed, the last for: {reason}.{told}")


def _written(oracle: Any, trial_id: str) -> str:
    """Why a trial failed, as its worker has written it down: KerasTuner's service does not send it."""
    path = Path(oracle._get_trial_dir(trial_id)) / FAILURE
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _settle(oracle: Any) -> None:
    """Let the oracle know of what a trial's own file says: a kill may have come before the oracle's was written."""
    for trial_id, trial in sorted(oracle.trials.items()):
        if trial_id not in oracle.start_order:
            oracle.start_order.append(trial_id)
            oracle._record_values(trial)
        if trial_id not in oracle.end_order and trial.status in ("COMPLETED", "FAILED"):
            oracle.end_order.append(trial_id)
    begun = dict.fromkeys([*oracle._retry_queue, *oracle.start_order])
    oracle._retry_queue = [trial_id for trial_id in begun if trial_id not in oracle.end_order]
    if isinstance(oracle, require("keras_tuner", extra="search").oracles.GridSearchOracle):
        _order_grid(oracle)


def _order_grid(oracle: Any) -> None:
    """Let a grid know how far it is, which it keeps in no file: its trials in their order, each with a next one to look for."""

    def compare(one: Any, other: Any) -> int:
        return int(oracle._compare(one.hyperparameters.values, other.hyperparameters.values))

    oracle._ordered_ids = type(oracle._ordered_ids)()
    for trial in sorted(oracle.trials.values(), key=cmp_to_key(compare)):
        oracle._ordered_ids.insert(trial.trial_id)
    oracle._populate_next = list(oracle.start_order)


@contextmanager
def heartbeat(folder: Path, tuner_id: str) -> Iterator[None]:
    """Show, for a while, that a worker is alive.

    Args:
        folder: The folder of the search, which chief and workers share.
        tuner_id: The worker.

    Yields:
        Nothing.
    """
    ended, path = threading.Event(), folder / f"alive_{tuner_id}"
    folder.mkdir(parents=True, exist_ok=True)

    def beat() -> None:
        while True:
            with suppress(OSError):  # of a shared folder, for a moment: the next beat may come through
                path.write_text(str(time.time()), encoding="ascii")
            if ended.wait(_BEAT_S):
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
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Answer the workers of a search until it ends, with KerasTuner's own service.

    A worker holds a lease on its trial as long as its heartbeat goes on. When that has stopped for ``lease_s``, the
    trial goes to the next worker that asks, and the chief waits for the worker no longer.

    Args:
        oracle: A hardened oracle.
        address: Host and port.
        folder: The folder of the search, in which workers show that they are alive.
        lease_s: Seconds after which a silent worker is taken for dead.
        patience_s: Seconds without any worker after which the chief ends.
        tell: Called when a trial has ended.

    Raises:
        SearchError: Too many trials failed, or no worker came.
    """
    grpc: Any = require("grpc", extra="search")
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
        leases.watch(servicer, patience_s, tell)
        tell()
    finally:
        server.stop(grace=1.0).wait()
    if oracle.failure is not None:
        raise SearchError(f"Expected trials that run. Received: {oracle.failure.strip()}")


class _Leases:
    """Who holds which trial, and since when nothing was heard of whom."""

    def __init__(self, oracle: Any, folder: Path, lease_s: float, synchronized: Any) -> None:
        self._oracle, self._folder, self._lease_s = oracle, folder, lease_s
        self._heard: dict[str, tuple[float, float]] = {}  # the file's own time, and when it was seen to change
        self._expire: Any = synchronized(_expire)

    def watch(self, servicer: Any, patience_s: float, tell: Callable[[], None]) -> None:
        """Return when the search has ended and every worker knows, or is gone."""
        lonely, known = time.monotonic(), 0
        while True:
            time.sleep(_LOOK_S)  # the server works in a thread of its own
            ended = len(self._oracle.end_order)
            if ended != known:
                known = ended
                tell()
            for tuner_id in list(self._oracle.tuner_ids):
                if self._silent_s(tuner_id) > self._lease_s:
                    self._expire(self._oracle, tuner_id)
            if self._oracle.tuner_ids:
                lonely = time.monotonic()
            elif servicer.stop_triggered or self._oracle.failure is not None:
                return
            elif time.monotonic() - lonely > patience_s:
                raise SearchError(
                    f"Expected workers. Received: none for {patience_s:.0f} s. Start them with the same KERASTUNER_ORACLE_IP and "
                    "KERASTUNER_ORACLE_PORT, and the chief again: the search goes on where it was."
                )

    def _silent_s(self, tuner_id: str) -> float:
        """Seconds since a worker was heard of, by this machine's clock: those of others may differ."""
        try:
            changed = (self._folder / f"alive_{tuner_id}").stat().st_mtime
        except FileNotFoundError:
            changed = 0.0
        now = time.monotonic()
        before = self._heard.get(tuner_id)
        if before is None or before[0] != changed:
            self._heard[tuner_id] = before = (changed, now)
        return now - before[1]


def _expire(oracle: Any, tuner_id: str) -> None:
    """Give the trial of a worker that is gone to the next one that asks."""
    trial = oracle.ongoing_trials.pop(tuner_id, None)
    if trial is not None and trial.trial_id not in oracle.end_order:
        oracle._retry_queue.append(trial.trial_id)
    oracle.tuner_ids.discard(tuner_id)
    oracle.save()
