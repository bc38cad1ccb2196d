"""What a client does in a round, on dense data.

TFF's stock client loop reduces a `tf.data` pipeline, which costs more than the
training that it wraps. Here the data of a client is a sequence of *one*
element, holding all its tensors and keys, and `training_loop` slices
mini-batches from them. `model_delta` makes a `ClientWorkProcess` of it.
"""
