"""Training on several devices or machines, with `tf.distribute`."""

import os

import tensorflow as tf

from kbnn import structure
from kbnn.datasets import Dataset
from kbnn.errors import UsageError


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes train together."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run: the chief, the first worker, or the only process."""
    resolver = strategy.cluster_resolver
    if not is_multi_worker(strategy) or resolver.task_type is None:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker" and resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
    )


def training_batches(
    strategy: tf.distribute.Strategy, data: Dataset, batch: int, seed: int, first: int
) -> tf.data.Dataset:
    """`Dataset.epochs`, with each batch split among the replicas: together they see the same images as one would.

    Raises:
        UsageError: the batch cannot be split evenly.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return data.epochs(batch, seed=seed, first=first)
    if batch % replicas:
        raise UsageError(f"{replicas} replicas cannot share a batch of {batch}: choose a multiple of {replicas}")

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        worker, workers = context.input_pipeline_id, context.num_input_pipelines
        batches = data.epochs(batch, seed=seed, first=first, worker=worker, workers=workers)
        return batches.rebatch(batch // replicas, drop_remainder=True)

    return strategy.distribute_datasets_from_function(of_worker)


def validation_batches(data: Dataset, batch: int) -> tf.data.Dataset | None:
    """Batches of the validation split, which Keras splits among the replicas; None if there is no such split."""
    if not data.validation.size:
        return None
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return data.batches(data.validation, batch).with_options(options)


def synchronize(model: tf.keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Makes batch normalizations use the statistics of the whole batch instead of each replica's part."""
    if strategy.num_replicas_in_sync == 1:
        return
    for layer in structure.layers_of(model, structure.BatchNormalization):
        layer.synchronized = True
        # The fused kernel cannot synchronize.
        layer.fused = False


def choose() -> tf.distribute.Strategy:
    """The strategy for this machine: the workers in `TF_CONFIG`, else all GPUs, else the default device.

    Call it before TensorFlow computes anything.
    """
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
