"""The noun at the centre: a token tree in flat arrays, its file, its checks, its exact optimum."""
