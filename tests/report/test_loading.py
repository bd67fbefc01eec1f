"""The inputs of a report: results from all sources, and files that could not be read."""

import json
from pathlib import Path

import pytest

import keras_precision as kp
from keras_precision.comparison.comparison import Comparison
from keras_precision.core.errors import FileFormatError, InputError
from keras_precision.report.by_machine import by_host
from keras_precision.report.loading import collect_results


def run(name: str, **environment: object) -> kp.Result:
    """Return a training run with one figure."""
    return kp.Result(name, [kp.Measurement("fit", "step_time_ms", 1.0)], kp.Environment(**environment))


def names(sources: object) -> list[str]:
    """Return the names of what was collect_resultsed."""
    return [result.name for result in collect_results(sources).results]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two results in folders of their own, a plan, and a file that is no JSON of ours."""
    for name in ("a", "float32"):
        (tmp_path / name).mkdir()
        run(name).save(tmp_path / name / "run.json")
    kp.PrecisionPlan.training("float32").save(tmp_path / "plan.json")
    (tmp_path / "package.json").write_text('{"name": "else"}')
    return tmp_path


def test_a_folder_is_read_with_those_below(folder: Path) -> None:
    """All results of a folder are loaded, float32 first, and valid files of other kinds are ignored."""
    inputs = collect_results(folder)
    assert [result.name for result in inputs.results] == ["float32", "a"]
    assert inputs.problems == ()


def test_results_files_and_folders_can_be_mixed(folder: Path) -> None:
    """A sequence may hold results, paths, and comparisons, whose results come first."""
    comparison = Comparison(run("base"), (run("other"),))
    assert names([run("one"), str(folder / "a" / "run.json"), comparison]) == ["base", "other", "one", "a"]
    assert names(run("one")) == ["one"]
    assert names(folder / "a") == ["a"]


def test_a_saved_comparison_is_read_as_one(tmp_path: Path) -> None:
    """A comparison in a folder keeps its results together, and the others stand apart."""
    Comparison(run("base"), (run("other"),)).save(tmp_path / "comparison.json")
    run("one").save(tmp_path / "run.json")
    inputs = collect_results(tmp_path)
    (comparison,) = inputs.comparisons
    assert comparison.baseline.name == "base"
    assert [result.name for result in inputs.uncompared(inputs.results)] == ["one"]
    assert inputs.compared_on(inputs.results) == [comparison]
    assert inputs.compared_on(inputs.results[-1:]) == []
    assert collect_results(tmp_path / "comparison.json").comparisons == (comparison,)


def test_results_of_one_name_are_renamed(tmp_path: Path) -> None:
    """The file's name stands behind a name that several have; without files, a number does."""
    for seed in (1, 2):
        run("bf16").save(tmp_path / f"seed-{seed}.json")
    assert names(tmp_path) == ["bf16 (seed-1)", "bf16 (seed-2)"]
    assert names([run("x"), run("x"), run("y")]) == ["x", "x #2", "y"]


def cut(path: Path, share: float) -> None:
    """Leave only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("cut", lambda path: cut(path, 0.5), "JSON"),
        ("empty", lambda path: path.write_bytes(b""), "JSON"),
        ("newer", lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99})), "99"),
        ("binary", lambda path: path.write_bytes(b"\x00\xff" * 50), "bin"),
    ],
)
def test_what_can_be_read_is_read(folder: Path, name: str, damage, message: str) -> None:
    """A file that is cut off, empty, of a newer version or no text is a problem, named, and the others are read."""
    path = run("damaged").save(folder / f"{name}.json")
    damage(path)
    inputs = collect_results(folder)
    assert [result.name for result in inputs.results] == ["float32", "a"]
    (problem,) = inputs.problems
    assert f"{name}.json" in problem
    assert message in problem
    with pytest.raises(FileFormatError):  # what was named by itself is not passed over
        collect_results(path)


def test_a_log_that_was_cut_off_in_a_row_is_read_until_there(tmp_path: Path) -> None:
    """The log of a killed run gives the rows that are whole, and a note."""
    log = run("killed").log_header() + "".join(
        kp.Measurement("step", "step_time_ms", 1.0, step).log_line() for step in range(5)
    )
    (tmp_path / "killed.json.partial").write_text(log[:-7])
    for source in (tmp_path, tmp_path / "killed.json"):
        (result,) = collect_results(source).results
        assert result.series("step_time_ms", "step")[0] == [0, 1, 2, 3]
        assert "did not end" in result.notes[0]
    run("finished").save(tmp_path / "killed.json")
    assert [result.name for result in collect_results(tmp_path).results] == ["finished"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, InputError, r"Expected a folder with results\. Received: '.*', which has none\. Save one with result\.save"),
        ("{", FileFormatError, r"Expected a folder with results\. Received: '.*', where every file is damaged\. .*one\.json.*and 1 more"),
    ],
)  # fmt: skip
def test_a_folder_without_a_sound_result_is_refused(tmp_path: Path, content, error, message: str) -> None:
    """An empty folder says how to save a result; one with damaged files alone, what is wrong with them."""
    if content is not None:
        for name in ("one", "two"):
            (tmp_path / f"{name}.json").write_text(content)
    with pytest.raises(error, match=message):
        collect_results(tmp_path)


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        ([], InputError, r"Expected at least one result\. Received: none\."),
        (3, InputError, r"Expected results, files or folders\. Received: int\. Pass a result"),
        ([b"x"], InputError, "Received: bytes"),
        ("gone.json", FileNotFoundError, "gone.json"),
    ],
)
def test_what_is_no_result_is_refused(sources: object, error: type[Exception], message: str) -> None:
    """Nothing, something else, and a file that is not there."""
    with pytest.raises(error, match=message):
        collect_results(sources)


def test_results_are_grouped_by_machine() -> None:
    """A machine has its results in their order; two devices of one machine stay together."""
    first, second = {"processor": "A", "cores": 1, "system": "Linux"}, {"processor": "B", "cores": 8}
    hosts = by_host([run("1", **first), run("2", **second), run("3", **first, device="card")])
    assert [(host.name, [result.name for result in host.results]) for host in hosts] == [
        ("A, 1 core, Linux", ["1", "3"]),
        ("B, 8 cores", ["2"]),
    ]
