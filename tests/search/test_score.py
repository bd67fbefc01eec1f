"""Scores: compiled metrics, the loss, and any metric of Keras, with their direction."""

import nets
import numpy as np
import pytest

from keras_precision.core.errors import InputError
from keras_precision.search.objective.score import score_of


@pytest.fixture(scope="module")
def regression():
    """A model that is compiled for a regression."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae", keras.metrics.RootMeanSquaredError(name="rmse")])
    return model


@pytest.mark.parametrize(
    ("name", "direction", "value"),
    [("mae", "min", 1.5), ("val_mean_absolute_error", "min", 1.5), ("rmse", "min", 2.5**0.5), ("loss", "min", 2.5)],
)
def test_metrics_of_a_regression(regression, name, direction, value):
    """A compiled metric is known by either name, in lower case or as results call it."""
    score = score_of(regression, name)
    assert score.direction == direction
    truth, predictions = np.array([1.0, 2.0]), np.array([[2.0], [4.0]])
    assert score.compute(truth.reshape(2, 1), predictions) == pytest.approx(value)
    assert score.drop(1.0, 1.5) == 0.5


def test_labels_without_the_axis_of_predictions_are_scored_as_fit_scores_them():
    """Labels of shape (n,) against predictions of shape (n, 1): broadcast, tf_keras's loss would be over all pairs."""
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(1)])
    truth, predictions = np.array([1.0, 2.0, 6.0]), np.array([[1.0], [2.0], [5.0]])
    for loss in ("mse", ["mse"], {model.output_names[0]: "mse"}):
        model.compile("adam", loss)
        assert score_of(model, "loss").compute(truth, predictions) == pytest.approx(1 / 3)


def test_a_loss_of_several_parts_is_no_score(regression):
    """The message has their number."""
    import keras

    inputs = keras.Input((2,))
    model = keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)])
    model.compile("adam", ["mse", "mae"])
    with pytest.raises(InputError, match="Expected a model that is compiled with one loss.*Received: 2"):
        score_of(model, "loss")


@pytest.mark.parametrize("name", ["SparseTopKCategoricalAccuracy", "SparseCategoricalAccuracy"])
def test_predictions_of_the_model_of_errors_are_scored(trained, name):
    """They are float64, which top-k does not take."""
    import keras

    metric = getattr(keras.metrics, name)()
    predictions = trained.model.predict(trained.x_val, verbose=0)
    score = score_of(trained.model, metric)
    assert score.compute(trained.y_val, predictions.astype("float64")) == score.compute(trained.y_val, predictions)


def test_a_metric_object_is_not_changed(regression):
    """A metric that is passed in computes in a copy, and keeps the state that it has."""
    import keras

    metric = keras.metrics.MeanAbsoluteError()
    metric.update_state([0.0], [4.0])
    assert score_of(regression, metric).compute(np.array([0.0]), np.array([1.0])) == 1.0
    assert float(metric.result()) == 4.0


def test_higher_is_better_where_it_is(trained):
    """Accuracy drops where it becomes smaller."""
    score = score_of(trained.model, "accuracy")
    assert score.direction == "max"
    assert score.drop(0.9, 0.8) == pytest.approx(0.1)


def test_a_direction_that_is_not_known_is_asked_for(regression):
    """A function of one's own has no direction until one is passed."""

    def closeness(truth, predictions):
        return -abs(truth - predictions)

    with pytest.raises(InputError, match="Expected the direction of the metric 'closeness', which is not known"):
        score_of(regression, closeness)
    assert score_of(regression, closeness, "max").direction == "max"


def test_names_that_are_not_compiled_are_refused(regression):
    """The message says what the model is compiled with, and how to have the metric."""
    import keras

    with pytest.raises(
        InputError, match=r"compiled with mean_absolute_error, rmse. .*Compile it with metrics=\['accuracy'\]"
    ):
        score_of(regression, "val_accuracy")
    without = nets.mlp(keras)
    without.compile("adam", "mse")
    with pytest.raises(InputError, match="it is compiled with no metrics"):
        score_of(without, "accuracy")


def test_a_model_that_is_not_compiled_has_the_metrics_of_keras():
    """As after loading with compile=False; a loss is no metric that a name could mean."""
    import keras

    score = score_of(nets.mlp(keras), "val_accuracy")
    assert score.direction == "max"
    assert score.compute(np.array([2, 0, 1, 1]), np.eye(3, dtype="float32")[[2, 0, 1, 0]]) == 0.75
    with pytest.raises(InputError, match="Expected a metric of Keras. Received: 'loss'"):
        score_of(nets.mlp(keras), "loss")


def test_a_metric_that_keras_lacks_is_refused(regression):
    """Where none of the compiled metrics is meant, its name must be one of Keras."""
    with pytest.raises(InputError, match="Expected a metric of Keras. Received: 'acuracy'. Pass the name of one"):
        score_of(regression, "acuracy", compiled=False)
