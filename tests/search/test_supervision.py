"""A search in several processes: leases, failures, a chief that ends, workers that are killed and begun again."""

import copy
import errno
import json
import os
import socket
import sys
import threading
from unittest.mock import MagicMock

import numpy as np
import psutil
import pytest

import keras_precision as kp
from keras_precision.core.errors import InputError, SearchError
from keras_precision.search.distributed import supervision
from keras_precision.search.distributed.role import chief_address, is_chief, is_first, is_worker, loopback_by_default
from keras_precision.search.distributed.supervision import (
    _expire,
    check_completed,
    harden,
    heartbeat,
    requeue_failed,
    serve,
)
from keras_precision.search.workers import main, run_workers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of KerasTuner's locks, and protobuf


@pytest.fixture
def oracle(tmp_path):
    """An oracle of KerasTuner over one choice, hardened, with three trials at most."""
    import keras_tuner

    space = keras_tuner.HyperParameters()
    space.Choice("layer", ["int8", "int4", "float32"])
    oracle = keras_tuner.oracles.GridSearchOracle(
        keras_tuner.Objective("score", "min"), max_trials=3, hyperparameters=space, max_consecutive_failed_trials=2
    )
    oracle.verbose = 0
    oracle._set_project_dir(str(tmp_path), "project")
    return harden(oracle)


def free_port():
    """Return a port that nobody listens at."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.fixture
def chief(oracle, tmp_path):
    """A chief in a thread; returns a function that makes a client, and one that waits for the chief's end."""
    from keras_tuner.src.distribute.oracle_client import OracleClient

    port = free_port()
    problems, counts = [], []

    def connect():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
            patch.setenv("KERASTUNER_ORACLE_PORT", str(port))
            patch.setenv("KERASTUNER_TUNER_ID", "worker")
            return OracleClient(oracle)

    def run():
        try:
            serve(
                oracle,
                f"127.0.0.1:{port}",
                tmp_path / "project",
                lease_s=1.5,
                on_trial_end=lambda: counts.append(len(oracle.end_order)),
            )
        except SearchError as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait():
        thread.join(timeout=60)
        assert not thread.is_alive()
        assert counts[-1] == len(oracle.end_order)  # whoever looks at the chief sees how far it is
        return problems

    yield connect, wait
    oracle.failure = oracle.failure or "the test is over"
    oracle.tuner_ids.clear()
    thread.join(timeout=60)


def end(client, trial, status="COMPLETED"):
    """Report a trial as a worker does."""
    if status == "COMPLETED":
        client.update_trial(trial.trial_id, {"score": 1.0})
    trial.status = status
    client.end_trial(trial)


def test_the_trial_of_a_silent_worker_goes_to_another_and_the_chief_ends(chief, oracle, tmp_path):
    """A worker that is gone loses its lease; the trial is run by the next, and nobody is waited for."""
    connect, wait = chief
    lost = connect().create_trial("gone")  # never heard of again
    with heartbeat(tmp_path / "project", "alive"):
        client, seen = connect(), []
        while (trial := client.create_trial("alive")).status != "STOPPED":
            if trial.status == "RUNNING":
                seen.append(trial.trial_id)
                end(client, trial)
            if len(seen) == 2 and lost.trial_id not in seen:  # wait for the lease to end: both other trials are done
                while "gone" in oracle.tuner_ids:
                    threading.Event().wait(0.05)
    assert wait() == []
    assert sorted(seen) == sorted(oracle.trials)
    assert lost.trial_id in seen
    assert oracle.ongoing_trials == {}


def test_a_worker_that_comes_back_late_changes_nothing(oracle):
    """A trial that another worker has ended meanwhile is ended once."""
    trial = oracle.create_trial("slow")
    oracle.update_trial(trial.trial_id, {"score": 1.0})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    late = copy.deepcopy(trial)
    late.status = "FAILED"
    oracle.end_trial(late)
    assert oracle.end_order == [trial.trial_id]
    assert oracle.trials[trial.trial_id].status == "COMPLETED"


@pytest.mark.parametrize("lost", ["its lease", "its chief"])
def test_a_trial_that_a_worker_ends_while_it_waits_for_another_is_not_run_again(oracle, tmp_path, lost):
    """The worker's lease ran out, or the chief was begun again: the worker goes on, and ends the trial all the same."""
    trial = copy.deepcopy(oracle.create_trial("one"))
    if lost == "its lease":
        _expire(oracle, "one")
    else:
        oracle = reloaded(oracle, tmp_path)
    assert trial.trial_id in oracle._retry_queue
    oracle.update_trial(trial.trial_id, {"score": 1.0})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    following = oracle.create_trial("one")
    assert following.trial_id != trial.trial_id
    assert oracle.trials[trial.trial_id].status == "COMPLETED"
    oracle.end_trial(copy.deepcopy(trial))  # as if two had run it
    assert oracle.ongoing_trials == {"one": following}


def test_a_search_that_fails_too_often_ends_with_the_reason(chief, tmp_path):
    """KerasTuner's chief would hang with its lock taken: ours stops its workers, and says why."""
    connect, wait = chief
    with heartbeat(tmp_path / "project", "worker"):
        client = connect()
        for _ in range(2):
            trial = client.create_trial("worker")
            (tmp_path / "project" / f"trial_{trial.trial_id}" / "failure.txt").write_text("out of luck")
            end(client, trial, "FAILED")
        assert client.create_trial("worker").status == "STOPPED"
    (problem,) = wait()
    assert "limit of 2" in str(problem)
    assert "out of luck" in str(problem)


def test_a_chief_without_workers_ends(oracle, tmp_path):
    """Nobody comes: the chief says so, and how to go on."""
    with pytest.raises(SearchError, match="Expected workers. Received: none for 0 s.*goes on where it was"):
        serve(oracle, "127.0.0.1:0", tmp_path, patience_s=0.0)


def test_files_of_an_oracle_are_written_whole(oracle, tmp_path, monkeypatch):
    """A write that is cut off leaves the state of before."""
    first = oracle.create_trial("one")
    path = tmp_path / "project" / "oracle.json"
    before = json.loads(path.read_text())
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space left")))
    with pytest.raises(OSError, match="no space"):
        oracle.save()
    assert json.loads(path.read_text()) == before
    assert before["ongoing_trials"] == {"one": first.trial_id}


def reloaded(oracle, tmp_path):
    """Another oracle over the same folder, as a new process makes it."""
    import keras_tuner

    again = keras_tuner.oracles.GridSearchOracle(
        keras_tuner.Objective("score", "min"), max_trials=3, hyperparameters=oracle.hyperparameters.copy()
    )
    again.verbose = 0
    again._set_project_dir(str(tmp_path), "project")
    harden(again).reload()
    return again


def test_a_trial_whose_own_file_alone_tells_of_its_beginning_is_run(oracle, tmp_path):
    """A kill between the two files of a trial's beginning: nobody would run it, and the search would wait for ever."""
    path = tmp_path / "project" / "oracle.json"
    first = oracle.create_trial("one")
    before = path.read_bytes()
    second = oracle.create_trial("two")
    path.write_bytes(before)
    again = reloaded(oracle, tmp_path)
    handed_out = [again.create_trial(name) for name in ("one", "two")]
    assert {trial.trial_id for trial in handed_out} == {first.trial_id, second.trial_id}
    assert again.start_order == [first.trial_id, second.trial_id]


def test_a_trial_whose_own_file_alone_tells_of_its_end_is_not_run_again(oracle, tmp_path):
    """A kill between the two files of a trial's end."""
    path = tmp_path / "project" / "oracle.json"
    first = oracle.create_trial("one")
    before = path.read_bytes()
    oracle.update_trial(first.trial_id, {"score": 1.0})
    first.status = "COMPLETED"
    oracle.end_trial(first)
    path.write_bytes(before)
    again = reloaded(oracle, tmp_path)
    assert again.end_order == [first.trial_id]
    assert again.create_trial("one").trial_id != first.trial_id


def test_a_grid_goes_on_where_it_was(oracle, tmp_path):
    """KerasTuner keeps the order of a grid in no file: after every trial a new process continues, up to the last plan."""
    seen = []
    while (trial := oracle.create_trial("one")).status == "RUNNING":
        seen.append(trial.hyperparameters.values["layer"])
        oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        oracle = reloaded(oracle, tmp_path)
    assert sorted(seen) == ["float32", "int4", "int8"]


def test_a_search_that_failed_too_often_is_tried_again(oracle, tmp_path):
    """The cause may be fixed: the failures in a row are run once more, and nothing that ended well."""
    for status in ("COMPLETED", "FAILED", "FAILED"):
        trial = oracle.create_trial("one")
        if status == "COMPLETED":
            oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = status
        oracle.end_trial(trial)
    assert "limit of 2" in oracle.failure
    first, *failed = oracle.end_order
    again = reloaded(oracle, tmp_path)
    assert again.end_order == oracle.end_order
    again.max_consecutive_failed_trials = 2
    requeue_failed(again)
    assert again.failure is None
    assert again.end_order == [first]
    again = reloaded(again, tmp_path)
    assert [again.create_trial(name).trial_id for name in ("one", "two")] == failed


def test_a_kill_while_failures_are_put_back_loses_none(oracle, tmp_path, monkeypatch):
    """What was not put back yet has still failed, and is put back another time."""
    for _ in range(2):
        trial = oracle.create_trial("one")
        trial.status = "FAILED"
        oracle.end_trial(trial)
    monkeypatch.setattr(oracle, "_save_trial", lambda trial: (_ for _ in ()).throw(KeyboardInterrupt))
    failed = list(oracle.end_order)
    with pytest.raises(KeyboardInterrupt):
        requeue_failed(oracle)
    again = reloaded(oracle, tmp_path)
    assert again.end_order == failed
    assert requeue_failed(again)
    assert again._retry_queue == failed[::-1]


@pytest.mark.parametrize(("statuses", "again"), [("F", [0]), ("FC", [0]), ("CF", []), ("CC", [])])
def test_what_others_hang_on_is_tried_again(oracle, statuses, again):
    """The first trial, with which the others are compared, and all, where none ended well; not a single failure."""
    for letter in statuses:
        trial = oracle.create_trial("one")
        if letter == "C":
            oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = {"C": "COMPLETED", "F": "FAILED"}[letter]
        oracle.end_trial(trial)
    order = list(oracle.end_order)
    assert requeue_failed(oracle) is bool(again)
    assert oracle._retry_queue == [order[number] for number in again]


def test_the_reason_of_a_failure_is_read_from_the_worker_s_file(oracle, tmp_path):
    """KerasTuner's service does not send it."""
    trial = oracle.create_trial("one")
    (tmp_path / "project" / f"trial_{trial.trial_id}" / "failure.txt").write_text(
        "Traceback\nkeras_tuner.src.errors.FailedTrialError: out of luck\n"
    )
    trial.status = "FAILED"
    oracle.end_trial(trial)
    with pytest.raises(SearchError, match="the last for: out of luck"):
        check_completed(oracle)


def test_a_chief_whose_search_has_ended_with_an_error_is_not_begun_again(tmp_path):
    """Its workers have gone home: a new chief would wait for them."""
    begun = tmp_path / "begun"
    code = (
        f"import os; name = os.environ['KERASTUNER_TUNER_ID']; open({str(begun)!r}, 'a').write(name + ' ')\n"
        "from keras_precision.core.errors import SearchError\nfrom keras_precision.search.distributed.role import record_verdict\n"
        "with record_verdict():\n    if name == 'chief': raise SearchError('Expected luck. Received: none.')\n"
    )
    with pytest.raises(SearchError, match=r"^Expected luck. Received: none.$"):
        run_workers(
            [sys.executable, "-c", code], 1, environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
    assert begun.read_text().split().count("chief") == 1


def test_a_heartbeat_goes_on_where_a_folder_is_gone_for_a_while(tmp_path, monkeypatch):
    """A shared folder may refuse a write; the worker is alive all the same."""
    beats, several = [], threading.Event()

    def write(path, text, **_):
        beats.append(path)
        if len(beats) == 3:
            several.set()
        raise OSError("stale file handle")

    monkeypatch.setattr(supervision, "_HEARTBEAT_S", 0.01)
    monkeypatch.setattr("pathlib.Path.write_text", write)
    with heartbeat(tmp_path, "worker"):
        assert several.wait(timeout=30)


def test_a_process_that_goes_on_for_one_that_died_begins_nothing_afresh(tmp_path):
    """A worker never does, nor what is begun again; the first chief, and a process alone, may."""
    assert is_first()
    mark = tmp_path / "begun"
    code = f"import os; open({str(mark)!r}, 'a').write(os.environ.get('KERAS_PRECISION_RESTARTED', 'first') + ' '); raise SystemExit(3)"
    with pytest.raises(SearchError):
        run_workers([sys.executable, "-c", code], 1, restarts=2)
    assert {"first", "1"} == set(mark.read_text().split())
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1"}
    for variables, begins in (
        ({"KERAS_PRECISION_RESTARTED": "1"}, False),
        ({**address, "KERASTUNER_TUNER_ID": "chief"}, True),
        ({**address, "KERASTUNER_TUNER_ID": "worker0"}, False),
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            assert is_first() is begins


def addresses(port):
    """Return where this process listens at a port."""
    listening = [
        connection for connection in psutil.Process().net_connections("tcp") if connection.status == psutil.CONN_LISTEN
    ]
    # gRPC has sockets of IPv6, on which an address of IPv4 has this prefix.
    return {connection.laddr.ip.removeprefix("::ffff:") for connection in listening if connection.laddr.port == port}


def set_role(patch, name, address=None, port="1234"):
    """Set KerasTuner's variables: an address of None is none."""
    patch.setenv("KERASTUNER_TUNER_ID", name)
    patch.setenv("KERASTUNER_ORACLE_PORT", port)
    patch.delenv("KERASTUNER_ORACLE_IP", raising=False)
    if address is not None:
        patch.setenv("KERASTUNER_ORACLE_IP", address)


@pytest.mark.parametrize("address", [None, "", "127.0.0.1"])
def test_a_chief_listens_on_this_machine_alone_unless_an_address_is_set(oracle, tmp_path, address):
    """No other machine reaches it where the variable is not set, or is empty."""
    port, seen = free_port(), []
    trial = oracle.create_trial("worker")
    trial.status = "FAILED"
    oracle.end_trial(trial)  # of which the chief tells as soon as it listens

    def tell():
        seen.append(addresses(port))
        oracle.failure = "the test is over"
        oracle.tuner_ids.clear()

    with pytest.MonkeyPatch.context() as patch:
        set_role(patch, "chief", address, str(port))
        assert (is_chief(), is_worker()) == (True, False)
        with pytest.raises(SearchError, match="Expected trials that run. Received: the test is over"):
            serve(oracle, chief_address(), tmp_path / "project", on_trial_end=tell)
    assert seen[0] == {"127.0.0.1"}


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_a_chief_listens_where_it_is_told(address):
    """Every address of a machine, or another one, is the user's own choice."""
    with pytest.MonkeyPatch.context() as patch:
        set_role(patch, "chief", address)
        assert chief_address() == f"{address}:1234"


@pytest.mark.parametrize("address", [None, "", "192.0.2.1"])
def test_a_worker_asks_a_chief_on_this_machine_unless_an_address_is_set(unsure, tmp_path, address):
    """KerasTuner's client gets the address of the chief's own default, and the variables stay as they are."""
    from keras_tuner.src.distribute.oracle_client import OracleClient

    asked = []
    with pytest.MonkeyPatch.context() as patch:
        set_role(patch, "worker0", address)
        patch.setattr("grpc.insecure_channel", lambda target: asked.append(target) or MagicMock())
        before = dict(os.environ)
        assert (is_chief(), is_worker()) == (False, True)
        tuner = kp.PrecisionTuner(unsure.model, unsure.x[:8], unsure.x_val, ("int8", "int4"), directory=tmp_path)
        assert isinstance(tuner.oracle, OracleClient)
        tuner.save()  # the oracle's files are the chief's business
        assert not list(tmp_path.glob("**/oracle.json"))
        assert dict(os.environ) == before
    assert asked == [f"{address or '127.0.0.1'}:1234"]


@pytest.mark.parametrize("name", ["KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"])
def test_a_port_alone_or_a_name_alone_makes_no_search_in_several_processes(name):
    """Either may be left over from another search."""
    with pytest.MonkeyPatch.context() as patch:
        set_role(patch, "chief")
        patch.delenv(name)
        assert (is_chief(), is_worker(), is_first()) == (False, False, True)
        with loopback_by_default():
            assert "KERASTUNER_ORACLE_IP" not in os.environ


def test_processes_of_one_machine_get_its_own_address(tmp_path):
    """Whatever the environment says, a chief and workers that are started together talk over 127.0.0.1."""
    addresses_file = tmp_path / "addresses"
    code = f"import os; open({str(addresses_file)!r}, 'a').write(os.environ['KERASTUNER_ORACLE_IP'] + ' ')"
    environment = {**os.environ, "KERASTUNER_ORACLE_IP": "0.0.0.0"}
    assert run_workers([sys.executable, "-c", code], 1, environment=environment) == 0
    assert addresses_file.read_text().split() == ["127.0.0.1", "127.0.0.1"]


def test_a_command_that_fails_is_begun_again_and_then_given_up(tmp_path, capfd):
    """Each restart is counted; the message names the process and its exit code."""
    with pytest.raises(SearchError, match=r"Received: exit code 3 from \w+, after 2 restarts"):
        run_workers([sys.executable, "-c", "raise SystemExit(3)"], 1, restarts=2)
    with pytest.raises(InputError, match="Expected workers >= 1"):
        run_workers(["true"], 0)
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit(4)")
    assert main(["--workers", "1", "--restarts", "0", str(script)]) == 2
    assert "exit code 4" in capfd.readouterr().err


SCRIPT = """
import os, signal, sys, warnings
import numpy as np
import keras
import keras_precision as kp

folder = sys.argv[1]
data = np.load(folder + "/data.npz")
model = keras.models.load_model(folder + "/model.keras")
tuner = kp.PrecisionTuner(
    model, data["x"], (data["x_val"], data["y_val"]), ("int8", "int4"), objective="front", metric="accuracy",
    directory=folder, project_name="shared", verbose=False, overwrite=True,
)
name, mark = os.environ["KERASTUNER_TUNER_ID"], folder + "/killed"
if name != "chief":
    run = tuner.run_trial
    def run_trial(trial, *args, **options):
        if not os.path.exists(mark):
            open(mark, "w").write(name)
            os.kill(os.getpid(), signal.SIGKILL)
        return run(trial, *args, **options)
    tuner.run_trial = run_trial
tuner.search(lease_s=60)
"""


@pytest.mark.slow
def test_a_chief_and_workers_end_with_the_front_of_one_process(unsure, tmp_path, capfd):
    """Two workers, one of which is killed in its first trial and begun again, find what one process finds."""
    unsure.model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=unsure.x[:64], x_val=unsure.x_val, y_val=unsure.y_val)
    (tmp_path / "search.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "search.py"), str(tmp_path)]
    paths = os.pathsep.join(filter(None, sys.path))
    again = run_workers(command, 2, environment={**os.environ, "PYTHONPATH": paths}, restarts=1)
    assert again == 1
    assert "Running Trial" not in capfd.readouterr().out  # KerasTuner's chief would print a table per trial
    assert (tmp_path / "killed").exists()
    alone, together = (
        kp.PrecisionTuner(
            unsure.model, unsure.x[:64], (unsure.x_val, unsure.y_val), ("int8", "int4"), objective="front",
            metric="accuracy", directory=tmp_path, project_name=name, verbose=False,
        )
        for name in ("alone", "shared")
    )  # fmt: skip
    for tuner in (alone, together):
        before = len(tuner.oracle.trials)
        tuner.search()
    assert len(together.oracle.trials) == before  # nothing was left to run
    assert {result.plan for result in together.results()} == {result.plan for result in alone.results()}
    assert [result.plan for result in together.pareto_front()] == [result.plan for result in alone.pareto_front()]
