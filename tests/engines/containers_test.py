"""Containers of TFF values survive being taken apart and put together."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure

from tff_pipeline.engines import containers

_VALUES = {
  'scalar': 1,
  'empty': (),
  'nested': ([1, (2, 3)], (4,)),
  'ordered': collections.OrderedDict(b=1, a=[2, 3]),
  'weights': tff.learning.models.ModelWeights([1, 2], [3]),
  'state': tff.learning.templates.LearningAlgorithmState(
    tff.learning.models.ModelWeights([1], []),
    (),
    collections.OrderedDict(z=2, y=()),
    3,
    (4, 5),
  ),
  'struct': structure.Struct([('b', 1), (None, 2)]),
}


@pytest.mark.parametrize('name', _VALUES)
def test_fill_undoes_flatten(name):
  value = _VALUES[name]
  leaves = containers.flatten(value)
  assert containers.fill(value, leaves) == value
  doubled = [2 * leaf for leaf in leaves]
  other = containers.fill(value, doubled)
  assert type(other) is type(value)
  assert containers.flatten(other) == doubled


@pytest.mark.parametrize('name', _VALUES)
def test_order_is_tffs(name):
  value = structure.from_container((_VALUES[name],), recursive=True)
  assert containers.flatten(_VALUES[name]) == structure.flatten(value)


@pytest.mark.parametrize('leaves', [[1], [1, 2, 3]])
def test_wrong_number_of_leaves_is_an_error(leaves):
  with pytest.raises(ValueError, match='leaves than in the template'):
    containers.fill([None, (None,)], leaves)


def test_template_has_the_containers_of_the_type():
  kind = tff.types.to_type(
    collections.OrderedDict(b=np.int32, a=[(np.float32, [2]), np.int64])
  )
  template = containers.template(kind)
  assert list(template) == ['b', 'a']
  assert containers.flatten(template) == [None] * 3
