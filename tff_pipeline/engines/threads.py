"""How TensorFlow shares the cores: between clients, or inside an operation.

The in-process engine trains one client per core. Splitting the small products
of a client's training between cores as well costs more than it gains: a bare
loop over clients of a 784-200-200-10 network took 1.5 times as long.
"""

import logging
import os

import tensorflow as tf

_log = logging.getLogger(__name__)


def prefer_clients(cohort: int) -> bool:
  """Makes operations single-threaded, where a cohort can fill the cores.

  A setting of the whole process, which TensorFlow takes only before its first
  operation; too late, nothing changes. A session with a config of its own
  keeps all cores.

  Args:
    cohort: Clients of a round.

  Returns:
    Whether operations are single-threaded now.
  """
  if cohort < (os.cpu_count() or 1) or tf.config.list_physical_devices('GPU'):
    return False
  try:
    tf.config.threading.set_intra_op_parallelism_threads(1)
  except RuntimeError:  # TensorFlow has started already.
    _log.debug('TensorFlow keeps its threads: it has started already.')
    return False
  return True
