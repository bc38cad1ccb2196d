"""run(config, output_dir): the only place where everything meets.

Everything that can be refused is refused before TensorFlow is imported, and
before anything is written.
"""

from tff_pipeline.experiment.building import Parts
from tff_pipeline.experiment.building import build
from tff_pipeline.experiment.building import smoke_round
from tff_pipeline.experiment.origin import versions
from tff_pipeline.experiment.running import describe
from tff_pipeline.experiment.running import run
from tff_pipeline.experiment.session import AT_ACCURACY
from tff_pipeline.experiment.session import AT_MAX_EPSILON
from tff_pipeline.experiment.session import FINISHED
from tff_pipeline.experiment.stopping import Failed
from tff_pipeline.experiment.stopping import Interrupted

__all__ = [
  'AT_ACCURACY',
  'AT_MAX_EPSILON',
  'FINISHED',
  'Failed',
  'Interrupted',
  'Parts',
  'build',
  'describe',
  'run',
  'smoke_round',
  'versions',
]
