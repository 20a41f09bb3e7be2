"""The surrogate of the search and the sampler that proposes by it, by the concepts of Bayesian optimisation."""
