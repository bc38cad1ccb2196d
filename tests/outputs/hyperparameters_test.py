import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tff_pipeline.outputs import hyperparameters


def test_leaves_are_shown_with_epsilon(tmp_path):
  folder = tmp_path / 'run' / 'tensorboard'
  leaves = {'privacy.clip_norm': 0.5, 'client.optimizer': 'sgd', 'rounds': 3}
  hyperparameters.write(folder, leaves, metrics=('epsilon', 'test_accuracy'))
  events = event_accumulator.EventAccumulator(str(folder)).Reload()
  contents = events.summary_metadata
  started = plugin_data_pb2.HParamsPluginData.FromString(
    contents['_hparams_/session_start_info'].plugin_data.content
  ).session_start_info
  assert {
    k: v.number_value or v.string_value for k, v in started.hparams.items()
  } == leaves
  shown = plugin_data_pb2.HParamsPluginData.FromString(
    contents['_hparams_/experiment'].plugin_data.content
  ).experiment
  names = [info.name.tag for info in shown.metric_infos]
  assert names == ['epsilon', 'test_accuracy']


def test_no_result_without_epsilon(tmp_path):
  with pytest.raises(ValueError, match='epsilon'):
    hyperparameters.write(tmp_path, {}, metrics=('test_accuracy',))


def test_extrapolated_epsilon_counts_by_its_name(tmp_path):
  metrics = ('extrapolated_epsilon', 'test_accuracy')
  hyperparameters.write(tmp_path, {'rounds': 3}, metrics=metrics)
  assert list(tmp_path.glob('*.hparams'))
