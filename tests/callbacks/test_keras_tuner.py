"""The profiler as a callback of KerasTuner, which copies its callbacks for every trial."""

import nets
import pytest

import keras_precision as kp


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of protobuf, under TensorBoard's summaries
def test_search_with_the_profiler(rng, tmp_path):
    """Every trial is profiled by a copy; its keys reach the trial's metrics."""
    import keras
    import keras_tuner

    def build(hp):
        with kp.precision(hp.Choice("precision", ["float32", "mixed_bfloat16"])):
            model = nets.mlp(keras, head="float32")
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    tuner = keras_tuner.GridSearch(build, objective="val_accuracy", directory=tmp_path, project_name="search")
    x, y = nets.classes(rng, 96)
    profiler = kp.PrecisionProfiler(log_metrics=True)
    tuner.search(x, y, validation_data=(x, y), epochs=2, batch_size=16, verbose=0, callbacks=[profiler])
    trials = tuner.oracle.get_best_trials(2)
    assert len(trials) == 2
    for trial in trials:
        assert trial.metrics.get_history("step_time_ms")[0].value[0] > 0
        assert trial.metrics.get_history("skipped_steps")[0].value == [0.0]
