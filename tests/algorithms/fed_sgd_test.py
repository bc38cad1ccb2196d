"""FedSGD is FedAvg of one step on everything; the batch size is no matter."""

from tests.algorithms import cohorts
from tff_pipeline import config

_ALGORITHM = config.Algorithm(name='fed_sgd', weighting='num_examples')
_CLIENT = config.Client(batch_size=5)
_SERVER = config.Server(learning_rate=0.4)


def test_is_fed_avg_of_one_full_step():
  ours = cohorts.run(
    cohorts.build(_ALGORITHM, client=_CLIENT, server=_SERVER), client=_CLIENT
  )
  whole = config.Client(batch_size=100, learning_rate=0.5)
  other = config.Algorithm(weighting='num_examples')
  fed_avg = cohorts.run(
    cohorts.build(other, client=whole, server=config.Server(learning_rate=0.8)),
    client=whole,
  )
  cohorts.assert_equal(ours, fed_avg)
  cohorts.assert_moved(ours)


def test_batch_size_changes_nothing():
  def run(size):
    client = config.Client(batch_size=size)
    process = cohorts.build(_ALGORITHM, client=client, server=_SERVER)
    return cohorts.run(process, client=client)

  cohorts.assert_equal(run(3), run(100))
