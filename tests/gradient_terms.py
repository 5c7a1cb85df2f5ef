"""Gradients of each term of a phase, term by term."""

import jax
import jax.numpy as jnp
from toy_runs import toy_inputs

from asvae_jax import methods


def by_terms(function):
    """Gradients of every entry of a dictionary with respect to each argument: {term: (gradient, ...)}."""
    return jax.jit(lambda *arguments: jax.jacrev(function, argnums=tuple(range(len(arguments))))(*arguments))


def encoder_terms(config, step=0, only=None):
    """{term: (by encoder, by decoder, by images)} of the encoder phase, of all its terms or of some."""
    state, images, noise = toy_inputs(config)
    loss = methods.make_method(config).encoder_loss

    def metrics(encoder, decoder, images):
        found = loss(encoder, decoder, images, noise, jnp.int32(step)).metrics
        return {term: found[term] for term in only or found}

    terms = by_terms(metrics)
    return terms(state.params["encoder"], state.params["decoder"], images)


def decoder_terms(config, step=0):
    """{term: (by encoder, by decoder, by z)} of the decoder phase."""
    state, images, noise = toy_inputs(config)
    loss = methods.make_method(config).decoder_loss
    terms = by_terms(lambda encoder, decoder, z: loss(encoder, decoder, images, z, noise, jnp.int32(step))[1])
    return terms(state.params["encoder"], state.params["decoder"], noise.eps_real)
